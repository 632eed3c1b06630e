"""``POST /pipelines/{pipeline}/{command}``: a person's decisions, under the name of their token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ml_control.serving.handlers.bodies import Approve, Promote, Reason, Strict, Traffic, decode
from ml_control.serving.handlers.desk import Command, Desk
from ml_control.serving.handlers.messages import Request
from ml_control.serving.handlers.reading import as_json
from ml_control.serving.handlers.steps import Do, Look, Steps

BODIES: dict[str, tuple[type[Strict], str]] = {
    "promote": (Promote, "Give all traffic to a proven model"),
    "rollback": (Reason, "Give all traffic back to the model before"),
    "traffic": (Traffic, "Change the challenger's share of entities"),
    "pause": (Reason, "Stop every automatic step"),
    "resume": (Reason, "Let automatic steps go on"),
    "approve": (Approve, "Let a model that waits for a person go on"),
    "reject": (Approve, "Refuse a model that waits for a person"),
}


def bind(functions: Mapping[str, Callable[..., Any]]) -> dict[str, Command]:
    """The commands that there are functions for; the others do not exist."""
    return {
        name: Command(name, body, summary, functions[name])
        for name, (body, summary) in BODIES.items()
        if name in functions
    }


def command(request: Request, desk: Desk, *, pipeline: str, name: str) -> Steps:
    """Carry a command out. Raises what it raises; the state before it stands then."""
    known = desk.commands[name]
    body = decode(known.body, request.body)
    yield Look(pipeline)
    given = {field: getattr(body, field) for field in body.__struct_fields__}
    actor = f"token:{request.caller.name}"
    done = yield Do(lambda: known.call(pipeline, actor=actor, **given))
    return as_json({"pipeline": pipeline, "command": name, "result": plain(done)})


def plain(value: Any) -> Any:
    """A record, or a dataclass of them, as plain data."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value
