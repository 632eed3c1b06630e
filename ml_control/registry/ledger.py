"""The ledger: what became of every version of every object."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

from ml_control.core.coalescing import Waiting
from ml_control.core.records import EVENT_STATES, Event, EventState
from ml_control.errors import Conflict
from ml_control.ports import Item, Put, Table, Tables
from ml_control.registry.marks import Marks

_TABLE: Table = "control-ledger"
_CURRENT = ("pending", "claimed", "done")
GAP = 1 << 20  # between the numbers of events that may be told of out of order


@dataclass(frozen=True)
class Claim:
    """A partition's open events, taken by one run, with the item version of each."""

    pipeline: str
    partition: str
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
        self.marks = Marks(tables, clock)

    def record(
        self,
        pipeline: str,
        events: Sequence[Event],
        fresh: Sequence[bool],
        arrived: Sequence[float] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> int:
        """Record events durably; gives how many are new. Recording one twice changes nothing.

        ``fresh[i]`` says that event i is certainly a new put, not word of an old one: then a
        version that was already recorded but is no longer current becomes pending again, unless
        the put that was recorded is this very one (``Event.put``). ``arrived``: when each came,
        where that is not now. ``numbers``: the place of each in the order of its key's versions,
        where that is not at the end (0); then the numbers lie far apart, so that there are places.
        """
        if not events:
            return 0
        step = 1 if numbers is None else GAP
        first, now = self._take_numbers(pipeline, len(events) * step), self._clock()
        numbered = [
            event.model_copy(
                update={
                    "seq": number or _number(event, first + (i + 1) * step - 1),
                    "recorded_at": at,
                }
            )
            for i, (event, at, number) in enumerate(
                zip(events, arrived or repeat(now), numbers or repeat(0), strict=False)
            )
        ]
        token = secrets.token_hex(8)
        touched = dict.fromkeys(event.partition for event in numbered if event.state == "pending")
        announced = self.marks.announce(pipeline, touched, token, map(_path, filter(_at, numbered)))
        written = self._tables.write_each([_put(event, expect=0) for event in numbered])
        revived = [
            event
            for event, new, certain in zip(numbered, written, fresh, strict=True)
            if not new and certain and self._revive(event)
        ]
        again = {event.partition for event in revived}
        for partition in again:  # one that was open may have been summed before
            self.marks.refresh(pipeline, partition, without=token)
            announced.pop(partition, None)
        new = [
            event
            for event, kept in zip(numbered, written, strict=True)
            if kept and event.partition in announced and event.state == "pending"
        ]
        self.marks.account(pipeline, token, announced, new)
        return sum(written) + len(revived)

    def _revive(self, event: Event) -> bool:
        """Make a known version current again (A, then B, then A is put)."""
        versions = self.versions(event.pipeline, event.partition, event.key)
        own = next(((e, v) for e, v in versions if e.version == event.version), None)
        if own is None:
            return False
        known, version = own
        if event.put and known.put == event.put:
            return False
        if max(e.seq for e, _ in versions) == known.seq and known.state in _CURRENT:
            if known.state != "claimed":  # so that word of this put, told again later, is known
                same = known.model_copy(update={"put": event.put})
                self._tables.write_each([_put(same, expect=version)])
            return False
        again = event.model_copy(update={"attempt": known.attempt})
        return self._tables.write_each([_put(again, expect=version)])[0]

    def versions(self, pipeline: str, partition: str, key: str) -> list[tuple[Event, int]]:
        """Every recorded version of a key in a partition, with its item version."""
        items = self._tables.query(_TABLE, _pk(pipeline), prefix=f"{partition}#{key}#")
        found = [(Event.model_validate(item.body), item.version) for item in items]
        return [(event, version) for event, version in found if event.key == key]  # '#' in a key

    def by_key(self, pipeline: str, partition: str, most: int) -> dict[str, list[Event]] | None:
        """Every recorded version in a partition, by key; None where these are over ``most``."""
        items = self._tables.query(_TABLE, _pk(pipeline), prefix=f"{partition}#", limit=most + 1)
        found: dict[str, list[Event]] = {}
        for count, item in enumerate(items):
            if count == most:
                return None
            event = Event.model_validate(item.body)
            if event.partition == partition:  # '#' in a partition
                found.setdefault(event.key, []).append(event)
        return found

    def at(self, pipeline: str, path: str) -> tuple[Event | None, str]:
        """The event that was recorded with this path, and the key that was meant to have it."""
        item = self._tables.get(_TABLE, f"path#{pipeline}", path)
        if item is None:
            return None, ""
        known = self._tables.get(_TABLE, _pk(pipeline), item.body["event"])
        return (Event.model_validate(known.body) if known else None), item.body["key"]

    def key_beside(self, pipeline: str, beginning: str, length: int) -> str:
        """The key of an event whose path begins so and is so long, or nothing."""
        items = self._tables.query(_TABLE, f"path#{pipeline}", prefix=beginning, limit=20)
        return next((str(item.body["key"]) for item in items if len(item.sk) == length), "")

    def index_paths(self, pipeline: str) -> None:
        """Note the paths of all events; those recorded by an older version have no note."""
        events = filter(_at, self.events(pipeline))
        while page := list(islice(events, 1000)):
            self._tables.write_each([_path(event) for event in page])

    def _take_numbers(self, pipeline: str, count: int) -> int:
        while True:
            item = self._tables.get(_TABLE, f"counter#{pipeline}", "events")
            used = int(item.body["used"]) if item else 0
            # Two writers that take as many at once would write the same: whoever must find out
            # whether its write was done tells its own by this.
            body = {"used": used + count, "by": secrets.token_hex(8)}
            fresh = Item(f"counter#{pipeline}", "events", body)
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

    def waiting(self, pipeline: str) -> Iterator[Waiting]:
        """Partitions with open events, oldest first, with their sums."""
        return self.marks.open(pipeline)

    def is_open(self, pipeline: str, partition: str) -> bool:
        """Whether the partition has an open event; a mark without one is closed."""
        for state in ("pending", "claimed"):
            index = f"{state}#{pipeline}"
            if list(self._tables.query_index(_TABLE, index, prefix=f"{partition}#", limit=1)):
                return True
        self.marks.refresh(pipeline, partition)
        return False

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
        mine_now = ((e, v + 1) for (e, v), ok in zip(taken, kept, strict=True) if ok)
        return Claim(pipeline, partition, run, tuple(mine_now))

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
        done = sum(self._tables.write_each(writes))
        self.marks.refresh(claim.pipeline, claim.partition)
        return done

    def move(self, events: Iterable[Event], state: EventState, reason: str | None) -> int:
        """Move events as they were read to another state (park, replay, supersede)."""
        writes, touched = [], set()
        for event in events:
            touched.add((event.pipeline, event.partition))
            item = self._tables.get(_TABLE, _pk(event.pipeline), _sk(event))
            if item is not None and Event.model_validate(item.body) == event:
                moved = event.model_copy(update={"state": state, "reason": reason})
                writes.append(_put(moved, expect=item.version))
        done = sum(self._tables.write_each(writes))
        for pipeline, partition in touched:
            self.marks.refresh(pipeline, partition)
        return done

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


def _number(event: Event, number: int) -> int:
    """What is recorded as superseded was never current, so that it gets no place in the order."""
    return number if event.state != "superseded" else 0


def _at(event: Event) -> str:
    return event.path


def _path(event: Event) -> Put:
    """The note that a path belongs to an event. Written first, so that no event is without one."""
    body = {"event": _sk(event), "key": event.key}
    return Put(_TABLE, Item(f"path#{event.pipeline}", event.path, body), 0)
