"""The OpenAPI 3.1 document, made from the routes and the types that requests are read by."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from ml_control import __version__
from ml_control.serving.handlers import bodies
from ml_control.serving.handlers.messages import JSON
from ml_control.serving.handlers.routes import ROLES, Route

_PIPELINE = {
    "name": "pipeline",
    "in": "path",
    "required": True,
    "description": "A pipeline's name.",
    "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
}


def document(routes: Sequence[Route], *, keys: bool) -> dict[str, Any]:
    """The document. ``keys``: reading and inference need a token as well."""
    typed = [kind for route in routes for kind in (route.takes, route.gives) if kind is not None]
    kinds = list(dict.fromkeys([*typed, bodies.Refused]))
    references, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(kinds, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, schemas, keys=keys
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ml-control gateway",
            "version": __version__,
            "description": "Predictions by the variant that an entity belongs to, outcomes, "
            "what is and was, and a person's decisions.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: dict[type, Any], *, keys: bool) -> dict[str, Any]:
    gives = schemas[route.gives] if route.gives else {"type": "object"}
    content = {route.kind: {"schema": gives if route.kind == JSON else {"type": "string"}}}
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status in route.refusals:
        responses[str(status)] = _refusal(status, schemas[bodies.Refused])
    operation: dict[str, Any] = {
        "operationId": _name(route),
        "summary": route.summary,
        "responses": responses,
    }
    if "{pipeline}" in route.path:
        operation["parameters"] = [_PIPELINE]
    if route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schemas[route.takes]}},
        }
    if route.access == "manage" or (keys and route.access != "open"):
        roles = ", ".join(role for role, may in ROLES.items() if route.access in may)
        operation["security"] = [{"token": []}]
        operation["description"] = f"Needs a token with one of the roles: {roles}."
    return operation


def _name(route: Route) -> str:
    """Such as ``post_pipelines_promote``."""
    parts = [part for part in route.path.split("/") if part and not part.startswith("{")]
    one = "_one" if route.path.endswith("}") and route.method == "GET" else ""
    return "_".join([route.method.lower(), *parts]).replace(".", "_") + one


def _refusal(status: int, schema: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}.",
        "content": {JSON: {"schema": schema}},
    }
    if status in (429, 503):
        found["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
    return found
