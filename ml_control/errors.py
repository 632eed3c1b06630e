"""Every refusal that ml-control makes, as one tree.

    MlControlError
    ├── InvalidSpec     a pipeline file, setting or argument is not usable as written
    ├── BadObject       an object or record of data is unusable; it goes to quarantine
    ├── NotProven       a gate said no: there is no passing verdict for exactly these bytes
    ├── Conflict        someone else holds it, or moved it meanwhile
    ├── Retryable       it may work later without a change: throttling, capacity, a missing part
    ├── PlatformFailed  the platform said no, in its own words
    └── Unknown         we cannot tell what is true: halt and ask a person

Each names the *object* it is about, the *reason*, and the *next* step, and is raised before
anything is changed, so that the earlier state stands.
"""

from __future__ import annotations

from typing import Any


class MlControlError(Exception):
    """A refusal: what it is about, why, and what to do next.

    Extra keyword arguments (row, column, holder, ...) become ``detail`` and are part of
    :meth:`to_dict`, so that a script need not parse the sentence.
    """

    def __init__(self, object: str, reason: str, next: str = "", **detail: Any) -> None:
        self.object = object
        self.reason = reason
        self.next = next
        self.detail = detail
        super().__init__(object, reason, next)

    @property
    def kind(self) -> str:
        """The class name: the word that scripts match on."""
        return type(self).__name__

    def to_dict(self) -> dict[str, Any]:
        """The error as the CLI and HTTP print it: kind, object, reason, next and details."""
        return {
            "kind": self.kind,
            "object": self.object,
            "reason": self.reason,
            "next": self.next,
            **self.detail,
        }

    def __str__(self) -> str:
        text = f"{self.kind}: {self.object}: {self.reason}"
        return f"{text} (next: {self.next})" if self.next else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.object, self.reason, self.next, self.detail))


def _rebuild(
    kind: type[MlControlError], object: str, reason: str, next: str, detail: dict[str, Any]
) -> MlControlError:
    return kind(object, reason, next, **detail)


class InvalidSpec(MlControlError):
    """A pipeline file, setting or argument is not usable as written."""


class BadObject(MlControlError):
    """An object or record of data is unusable; ``detail`` may carry ``row`` and ``column``."""


class NotProven(MlControlError):
    """A gate said no, or no verdict exists for exactly these bytes."""


class Conflict(MlControlError):
    """Someone else holds it or moved it meanwhile; ``detail`` may carry the ``holder``."""


class Retryable(MlControlError):
    """It may work later without a change."""


class PlatformFailed(MlControlError):
    """The platform said no; the reason carries its words."""


class Unknown(MlControlError):
    """We cannot tell what is true, so we halt and ask a person."""


def error_from(told: dict[str, Any]) -> MlControlError:
    """The error that ``to_dict`` told of; ``PlatformFailed`` for an unknown kind."""
    kinds = {kind.__name__: kind for kind in MlControlError.__subclasses__()}
    kind = kinds.get(str(told.get("kind")), PlatformFailed)
    detail = {k: v for k, v in told.items() if k not in ("kind", "object", "reason", "next")}
    object, reason, next = (str(told.get(part, "")) for part in ("object", "reason", "next"))
    return kind(object, reason, next, **detail)
