"""Every address that is answered: what it takes, who may ask, and the function behind it.

Dispatch, the OpenAPI document and docs/gateway.md are all made from, or checked against, this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ml_control.serving.handlers import bodies, inference, management, outcomes, reading
from ml_control.serving.handlers.desk import Command
from ml_control.serving.handlers.messages import JSON
from ml_control.serving.handlers.steps import Steps

Access = Literal["open", "infer", "read", "manage"]
# What each role may do; without ``gateway_keys`` nobody needs one to infer and to read.
ROLES: dict[str, frozenset[Access]] = {
    "": frozenset({"open"}),
    "caller": frozenset({"open", "infer"}),
    "reader": frozenset({"open", "read"}),
    "manager": frozenset({"open", "infer", "read", "manage"}),
}
Handler = Callable[..., Steps]
_REFUSALS = (400, 401, 403, 404, 405, 408, 413, 415, 429, 502, 503)


@dataclass(frozen=True)
class Route:
    """One method of one address. ``{pipeline}`` in the path is a parameter of the handler."""

    method: Literal["GET", "POST"]
    path: str
    access: Access
    summary: str
    handler: Handler
    takes: type[bodies.Strict] | None = None
    gives: type | None = None  # None: an object without a fixed form
    statuses: tuple[int, ...] = ()  # besides 200 and those that any address may have
    kind: str = JSON
    accepts: str = JSON  # the form of the body
    page: bool = False  # for people: not part of the OpenAPI document

    @property
    def refusals(self) -> list[int]:
        """Statuses of refusals, in order."""
        own = {401, 403, 502} if self.access == "open" else set()
        if self.takes is None:
            own |= {400, 408, 413, 415}
        if "{" not in self.path:
            own |= {404}
        return sorted({*(s for s in _REFUSALS if s not in own), *self.statuses})


def routes(commands: Mapping[str, Command]) -> list[Route]:
    """The routes, with one for each command that there is."""
    return [
        Route(
            "POST", "/inference/{pipeline}", "infer", "Predictions for records",
            inference.infer, bodies.Inference, bodies.Predictions, (409,),
        ),
        Route(
            "POST", "/outcomes/{pipeline}", "infer", "Tell what really happened",
            outcomes.tell, bodies.Outcomes, bodies.Told, (409,),
        ),
        Route("GET", "/pipelines", "read", "Every pipeline now", reading.pipelines),
        Route("GET", "/pipelines/{pipeline}", "read", "One pipeline now", reading.pipeline),
        Route(
            "GET", "/pipelines/{pipeline}/history", "read", "Every decision", reading.history
        ),
        *(
            Route(
                "POST", f"/pipelines/{{pipeline}}/{name}", "manage", command.summary,
                partial(management.command, name=name), command.body, None, (409,),
            )
            for name, command in commands.items()
        ),
        Route("GET", "/healthz", "open", "That it answers", reading.healthz, None, bodies.Health),
    ]  # fmt: skip


class Table:
    """Finds the routes of a path."""

    def __init__(self, known: Sequence[Route]) -> None:
        self.routes = list(known)
        self._exact: dict[str, dict[str, Route]] = {}
        self._below: dict[tuple[str, str], dict[str, Route]] = {}
        for route in known:
            head, parameter, tail = route.path.partition("{pipeline}")
            if parameter:
                methods = self._below.setdefault((head, tail), {})
            else:
                methods = self._exact.setdefault(head, {})
            if route.method in methods:
                raise ValueError(f"{route.method} {route.path} is there twice")
            methods[route.method] = route

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        """The routes of a path by method, none for an unknown one, and the path's parameters."""
        if (found := self._exact.get(path)) is not None:
            return found, {}
        head, slash, rest = path[1:].partition("/")
        name, more, tail = rest.partition("/")
        key = (f"/{head}{slash}", f"{more}{tail}")
        if not name or (found := self._below.get(key)) is None:
            return {}, {}
        return found, {"pipeline": name}
