"""A request, its answer, and the one table from a refusal to a status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ml_control.errors import (
    BadObject,
    Conflict,
    InvalidSpec,
    MlControlError,
    NotProven,
    PlatformFailed,
    Retryable,
    Unknown,
)

Role = Literal["caller", "reader", "manager"]
JSON = "application/json"
# The more particular refusals (401, 404, 413, ...) are raised as a ``Refusal`` with their status.
STATUS: dict[type[MlControlError], int] = {
    InvalidSpec: 400,
    BadObject: 400,
    NotProven: 409,
    Conflict: 409,
    Retryable: 503,
    PlatformFailed: 502,
    Unknown: 503,
}
_RETRY_SECONDS = "1"


@dataclass(frozen=True)
class Caller:
    """Who asks: the name and role of a token, both empty without one."""

    name: str = ""
    role: Role | Literal[""] = ""
    address: str = ""


@dataclass(frozen=True)
class Request:
    """One request. ``headers`` have lower-case names; ``path`` is decoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    caller: Caller = Caller()


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = JSON


class Refusal(Exception):
    """A typed error with a status of its own, and perhaps headers."""

    def __init__(self, status: int, error: MlControlError, **headers: str) -> None:
        self.status = status
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, error)


def refused(error: MlControlError | Refusal, **more: Any) -> Answer:
    """The answer to a refusal, with its status; ``more`` stands beside the error."""
    headers: dict[str, str] = {}
    if isinstance(error, Refusal):
        status, headers, error = error.status, error.headers, error.error
    else:
        status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if status == 503 and isinstance(error, Retryable | NotProven):
        headers = {"retry-after": _RETRY_SECONDS, **headers}
    text = json.dumps({"error": error.to_dict(), **more}, default=str)
    return Answer(status, text.encode() + b"\n", headers)


def failed(kind: str) -> Answer:
    """The answer when we have a fault: nothing of it is told but what kind of error it was."""
    error = PlatformFailed("gateway", f"failed: {kind}", "see logs/gateway.log")
    return refused(Refusal(500, error))


def not_found(path: str) -> Refusal:
    """The refusal of an address that is none."""
    shown = path if len(path) <= 80 else f"{path[:80]}..."
    return Refusal(404, InvalidSpec(shown, "there is nothing at this address", "see /openapi.json"))
