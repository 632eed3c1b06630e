"""The ledger: what became of every version of every object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from ml_control.core.records import EVENT_STATES, Event, EventState
from ml_control.errors import Conflict
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "control-ledger"


@dataclass(frozen=True)
class Claim:
    """A partition's open events, taken by one run, with the item version of each."""

    run: str
    events: tuple[tuple[Event, int], ...]

    def __iter__(self) -> Iterator[Event]:
        return (event for event, _ in self.events)


class Ledger:
    """Events by pipeline and partition. A record is never removed; only its state moves.

    ``pending -> claimed -> done | quarantined | superseded | parked``. A claim is a mark, not a
    lock: whoever holds the partition's lease may take over claims of runs that ended without
    acknowledging, so nothing stays claimed by the dead.
    """

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._clock = clock

    def record(
        self,
        pipeline: str,
        events: Sequence[Event],
        fresh: Sequence[bool],
        taken_at: Sequence[float] | None = None,
    ) -> int:
        """Record events durably; gives how many are new. Recording one twice changes nothing.

        ``fresh[i]`` says that event i is certainly a new put, not word of an old one: then a
        version that was already recorded but is no longer current becomes pending again. Where
        ``taken_at`` says when the put was taken, a version recorded since then is word of it.
        """
        if not events:
            return 0
        first = self._take_numbers(pipeline, len(events))
        numbered = [
            event.model_copy(update={"seq": first + i, "recorded_at": self._clock()})
            for i, event in enumerate(events)
        ]
        written = self._tables.write_each([_put(event, expect=0) for event in numbered])
        revived = [
            self._revive(event, since)
            for event, new, certain, since in zip(
                numbered, written, fresh, taken_at or [inf] * len(events), strict=True
            )
            if not new and certain
        ]
        return sum(written) + sum(revived)

    def _revive(self, event: Event, since: float) -> bool:
        """Make a known version current again (A, then B, then A is put)."""
        prefix = f"{event.partition}#{event.key}#"
        items = self._tables.query(_TABLE, _pk(event.pipeline), prefix=prefix)
        found = [(Event.model_validate(item.body), item.version) for item in items]
        versions = [(e, v) for e, v in found if e.key == event.key]  # a key may contain '#'
        own = next(((e, v) for e, v in versions if e.version == event.version), None)
        if own is None:
            return False
        known, version = own
        current = max(e.seq for e, _ in versions) == known.seq
        if known.recorded_at >= since or (
            current and known.state in ("pending", "claimed", "done")
        ):
            return False
        again = event.model_copy(update={"attempt": known.attempt})
        return self._tables.write_each([_put(again, expect=version)])[0]

    def _take_numbers(self, pipeline: str, count: int) -> int:
        while True:
            item = self._tables.get(_TABLE, f"counter#{pipeline}", "events")
            used = int(item.body["used"]) if item else 0
            fresh = Item(f"counter#{pipeline}", "events", {"used": used + count})
            try:
                self._tables.transact([Put(_TABLE, fresh, item.version if item else 0)])
            except Conflict:
                continue
            return used + 1

    def open_events(self, pipeline: str, partition: str | None = None) -> Iterator[Event]:
        """Events that are pending or claimed, by state, then partition and key."""
        prefix = f"{partition}#" if partition is not None else ""
        for state in ("pending", "claimed"):
            for item in self._tables.query_index(_TABLE, f"{state}#{pipeline}", prefix=prefix):
                yield Event.model_validate(item.body)

    def claim(self, pipeline: str, partition: str, run: str) -> Claim:
        """Take every open event of the partition for this run.

        The caller holds the partition's lease, so an event that is still claimed belongs to a
        run that ended without acknowledging it, and is taken over.
        """
        taken: list[tuple[Event, int]] = []
        for state in ("pending", "claimed"):
            index = f"{state}#{pipeline}"
            for item in list(self._tables.query_index(_TABLE, index, prefix=f"{partition}#")):
                event = Event.model_validate(item.body)
                mine = event.model_copy(
                    update={"state": "claimed", "run": run, "attempt": event.attempt + 1}
                )
                taken.append((mine, item.version))
        kept = self._tables.write_each([_put(e, expect=version) for e, version in taken])
        return Claim(run, tuple((e, v + 1) for (e, v), ok in zip(taken, kept, strict=True) if ok))

    def settle(
        self, claim: Claim, outcome: Callable[[Event], tuple[EventState, str | None]]
    ) -> int:
        """Move each claimed event to its outcome (state, reason); gives how many were moved.

        An event that changed hands meanwhile is left to its new holder.
        """
        writes = []
        for event, version in claim.events:
            state, reason = outcome(event)
            moved = event.model_copy(update={"state": state, "reason": reason})
            writes.append(_put(moved, expect=version))
        return sum(self._tables.write_each(writes))

    def move(self, events: Iterable[Event], state: EventState, reason: str | None) -> int:
        """Move events as they were read to another state (park, replay, supersede)."""
        writes = []
        for event in events:
            item = self._tables.get(_TABLE, _pk(event.pipeline), _sk(event))
            if item is not None and Event.model_validate(item.body) == event:
                moved = event.model_copy(update={"state": state, "reason": reason})
                writes.append(_put(moved, expect=item.version))
        return sum(self._tables.write_each(writes))

    def events(
        self, pipeline: str, partition: str | None = None, state: EventState | None = None
    ) -> Iterator[Event]:
        """Events of a pipeline, sorted by partition and key."""
        prefix = f"{partition}#" if partition is not None else ""
        items = (
            self._tables.query(_TABLE, _pk(pipeline), prefix=prefix)
            if state is None
            else self._tables.query_index(_TABLE, f"{state}#{pipeline}", prefix=prefix)
        )
        return (Event.model_validate(item.body) for item in items)

    def counts(self, pipeline: str) -> dict[str, int]:
        """How many events are in each state."""
        return {
            state: self._tables.count_index(_TABLE, f"{state}#{pipeline}") for state in EVENT_STATES
        }


def _pk(pipeline: str) -> str:
    return f"event#{pipeline}"


def _sk(event: Event) -> str:
    return f"{event.partition}#{event.key}#{event.version}"


def _put(event: Event, *, expect: int) -> Put:
    item = Item(_pk(event.pipeline), _sk(event), event.to_json(), f"{event.state}#{event.pipeline}")
    return Put(_TABLE, item, expect)
