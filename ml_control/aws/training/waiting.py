"""Waiting for a job: gentle on the API, patient with throttling, never with expired credentials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ml_control.errors import Retryable

_PATIENCE = 5  # looks in a row that may be refused
_ENDED = frozenset({"Completed", "Failed", "Stopped"})


@dataclass(frozen=True)
class Pace:
    """How often a job is looked at: at first every ``first`` seconds, slower the longer it runs."""

    first: float = 0.2
    longest: float = 15.0
    growth: float = 1.25
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def pauses(self) -> Iterator[float]:
        """Seconds before the next look, and the one after it, and so on."""
        pause = self.first
        while True:
            yield pause
            pause = min(self.longest, pause * self.growth)


def wait(
    look: Callable[[], dict[str, Any] | None],
    status: Callable[[dict[str, Any]], str],
    tell: Callable[[], None],
    what: str,
    pace: Pace,
) -> dict[str, Any]:
    """What AWS says of a job once it has ended. ``tell`` is called after every look.

    What ``tell`` raises comes through. Raises ``Retryable`` when AWS could not be asked several
    times in a row, or refuses expired credentials: the job goes on, and the next caller adopts it;
    and when AWS does not show the job several times in a row.
    """
    pauses, refused, absent = pace.pauses(), 0, 0
    while True:
        try:
            told = look()
            refused, absent = 0, 0 if told is not None else absent + 1
        except Retryable as error:
            refused += 1
            code = str(error.detail.get("code", ""))
            if refused > _PATIENCE or "Expired" in code or code == "TokenRefreshRequired":
                raise Retryable(
                    what,
                    f"cannot be watched any more: {error.reason}",
                    f"{error.next}: the job goes on and is adopted",
                    **error.detail,
                ) from error
        else:
            tell()
            if told is not None and status(told) in _ENDED:
                return told
            if absent > _PATIENCE:
                raise Retryable(what, "is not known to AWS any more", "ask for it again")
        pace.sleep(next(pauses))
