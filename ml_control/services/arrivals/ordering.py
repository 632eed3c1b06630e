"""Events of a source that does not tell in order, put where they belong among what is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ml_control.core.records import Event
from ml_control.platform import Platform
from ml_control.registry.ledger import GAP

_MANY = 10  # events of a partition from which on a look at all of it may be less
_WORTH = 5  # known events that are read for each look that is saved


def in_order(platform: Platform, events: Sequence[Event]) -> tuple[list[Event], list[int]]:
    """The events as they are to be recorded, and the number of each; 0: the next one.

    One whose key has a version that was put later gets a number below that one's, so that it never
    replaces it. One that is known keeps the partition that it was recorded in: its time may be
    told otherwise by a listing than by an event.
    """
    placed, numbers = [], []
    there = [_where_known(platform, told) for told in events]
    known = _Known(platform, there)
    for event in there:
        newer, number = _newer(platform, event, known)
        placed.append(_overtaken(event) if any(each.state == "done" for each in newer) else event)
        numbers.append(number)
    return placed, numbers


def _where_known(platform: Platform, event: Event) -> Event:
    if "/dt=" in event.key or not event.path:
        return event
    known, _ = platform.registry.ledger.at(event.pipeline, event.path)
    return event if known is None else event.model_copy(update={"partition": known.partition})


def _overtaken(event: Event) -> Event:
    if event.state != "pending":
        return event
    said = "a version that was put later was told of first, and taken"
    return event.model_copy(update={"state": "superseded", "reason": said})


class _Known:
    """What the ledger knows of the events' keys: by a look at each, or at a whole partition where
    that is less than so many looks.
    """

    def __init__(self, platform: Platform, events: Sequence[Event]) -> None:
        self._ledger = platform.registry.ledger
        self._whole = {
            place: found
            for place, count in Counter((e.pipeline, e.partition) for e in events).items()
            if count >= _MANY and (found := self._ledger.by_key(*place, _WORTH * count)) is not None
        }

    def versions(self, event: Event) -> list[Event]:
        """The known versions of an event's key in its partition."""
        whole = self._whole.get((event.pipeline, event.partition))
        if whole is not None:
            return whole.get(event.key, [])
        found = self._ledger.versions(event.pipeline, event.partition, event.key)
        return [known for known, _ in found]


def _newer(platform: Platform, event: Event, ledger: _Known) -> tuple[list[Event], int]:
    """Known versions that were put later, and a number below theirs; none and 0 otherwise."""
    if not event.path:
        return [], 0
    known = ledger.versions(event)
    if any(other.version == event.version for other in known):
        return [], 0
    newer: list[Event] = []
    below = 0
    # What was superseded when it was found has no number, for it never was current.
    for other in sorted((e for e in known if e.path and e.seq), key=lambda e: -e.seq):
        if not _is_older(platform, event, other):
            below = other.seq
            break
        newer.append(other)
    return newer, _between(below, newer[-1].seq) if newer else 0


def _is_older(platform: Platform, event: Event, other: Event) -> bool:
    """Whether an event's version was put before another one of its key; if in doubt it was not."""
    if event.order.strip("0") and other.order.strip("0") and event.order != other.order:
        return event.order < other.order
    return platform.notifications.later(event.path, other.path) is False


def _between(below: int, above: int) -> int:
    """A number between two; of the first version, for which nothing is below, far below it. Never
    0, for that is the end.
    """
    return ((below + above) // 2 if below else above - GAP) or below or -1
