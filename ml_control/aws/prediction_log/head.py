"""The head of a pipeline's log: one item that every commit moves, from a known state to the next.

Whoever writes does so only if the head is still what it read, so all commits of a pipeline are one
after the other and everything that was read under a head still holds when the head is moved.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ml_control.aws.prediction_log.keys import Key
from ml_control.aws.prediction_log.values import Item, integer, number, string, text
from ml_control.errors import Unknown
from ml_control.ports import LogState

FORM = 1  # of the items; another one is refused
_A_SECOND = 1 << 13  # offsets that a second of the clock stands for
RECENT = 24  # commits that the head remembers
_NUMBERS = {
    "next": "Next", "next_joined": "NextJoined", "floor": "Floor", "bare": "Bare",
    "floor_joined": "FloorJoined", "waiting": "Waiting", "expired": "Expired",
    "unjoinable": "Unjoinable", "forgets": "Forgets",
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """Where a log stands. ``floor``: requests up to there are gone; ``bare``: also their records;
    ``floor_joined``: joined outcomes up to there are gone; ``forgets``: how often exposed entities
    were forgotten.
    """

    next: int
    next_joined: int
    floor: int
    bare: int
    floor_joined: int
    waiting: int = 0
    expired: int = 0
    unjoinable: int = 0
    forgets: int = 0
    recent: tuple[str, ...] = ()  # ids of the last commits, newest first

    @property
    def commit(self) -> str:
        """The id of the last commit; empty before the first."""
        return self.recent[0] if self.recent else ""

    @property
    def state(self) -> LogState:
        """The same as the port tells it."""
        return LogState(
            self.next - 1, self.next_joined - 1, self.waiting, self.expired, self.unjoinable
        )


def new_head() -> Head:
    """The head of a log that begins now.

    Its offsets begin at the clock's seconds, so that a log that was lost and made anew goes on
    beyond every offset that a reader has noted.
    """
    first = int(time.time()) * _A_SECOND
    return Head(first, first, first - 1, first - 1, first - 1)


def read_head(item: Item) -> Head:
    """The head in an item. Raises ``Unknown`` for a log of another form."""
    if (form := integer(item, "Form")) != FORM:
        raise Unknown(
            string(item, "Subject"), f"prediction log of form {form}, not {FORM}",
            "use its own version",
        )  # fmt: skip
    numbers = {field: integer(item, name) for field, name in _NUMBERS.items()}
    return Head(**numbers, recent=tuple(string(item, "Recent").split()))


def head_item(key: Key, head: Head, commit: str) -> Item:
    """The item of a head that this commit makes."""
    numbers = {name: number(getattr(head, field)) for field, name in _NUMBERS.items()}
    recent = (commit, *head.recent)[:RECENT]
    return {
        "Subject": text(key[0]),
        "Item": text(key[1]),
        "Form": number(FORM),
        "Commit": text(commit),
        "Recent": text(" ".join(recent)),
        **numbers,
    }
