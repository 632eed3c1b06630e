"""What to do next so that an endpoint serves what is wanted: from what it is now, at any time.

Level-based: whoever takes over from a deployer that died comes to the same end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Step = Literal["create", "update", "delete", "wait", "done", "failed"]
UNDER_WAY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
BROKEN = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})


@dataclass(frozen=True)
class Look:
    """An endpoint as it was found: its status, the configuration it runs and the one it goes to.

    ``at``: when it was last changed, in UTC seconds.
    """

    status: str
    config: str
    pending: str = ""
    reason: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Attempt:
    """What a deployer knows of its own attempt.

    ``asked``: the wanted configuration was accepted, by this deployer or one before it; ``before``:
    what ran then, and ``at`` when that was last changed. ``moved``: the change was seen under way.
    """

    wanted: str
    asked: bool = False
    before: str = ""
    at: float = 0.0
    moved: bool = False


def seen(attempt: Attempt, look: Look | None) -> Attempt:
    """The attempt after a look: a change to what is wanted that is under way counts as asked."""
    if look is None:
        return attempt
    if look.status == "RollingBack":
        return replace(attempt, moved=True)
    if look.status == "Creating" and look.config == attempt.wanted:
        return Attempt(attempt.wanted, asked=True, moved=True)
    if look.status == "Updating" and look.pending == attempt.wanted:
        return replace(attempt, asked=True, before=look.config, moved=True)
    return attempt


def next_step(attempt: Attempt, look: Look | None) -> Step:
    """The next step. ``failed``: what was asked for did not come to serve.

    What failed before anybody asked is a leftover, and removed. What somebody else put there
    meanwhile is replaced: only the newest deployer gets so far. An endpoint that looks as it did
    before it was asked may be shown late: that is no failure.
    """
    if look is None:
        return "create"
    if look.status in UNDER_WAY:
        return "wait"
    if look.status in BROKEN:
        return "failed" if attempt.asked else "delete"
    if look.config == attempt.wanted:
        return "done"
    if not attempt.asked or look.config != attempt.before:
        return "update"
    return "failed" if attempt.moved or look.at != attempt.at else "wait"
