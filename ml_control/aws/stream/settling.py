"""What a consumer's report changes: the position and the records set aside, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ml_control.aws.stream.envelope import place_of, shard_number
from ml_control.aws.stream.position import (
    TABLE,
    Position,
    Settled,
    index_of,
    pk,
    position_key,
    put_aside,
    put_position,
    read_aside,
    read_position,
)
from ml_control.aws.stream.shards import Held, Shards
from ml_control.aws.stream.window import Window, settled_of
from ml_control.errors import Conflict, Retryable
from ml_control.ports import Parked, Put, Tables

_ASIDE, _ASIDE_BYTES = 90, 2_500_000  # of one transaction: at most 100 writes and 4 MB
_TRIES_TO_WRITE = 30


@dataclass
class Step:
    """One transaction, and what is true when it is written."""

    writes: list[Put] = field(default_factory=list)
    named: set[int] = field(default_factory=set)  # what of the report it is about
    gone: set[int] = field(default_factory=set)  # what does not wait any more
    parked: list[int] = field(default_factory=list)


@dataclass
class Settling:
    """A report by sequence number, as far as it is not written yet."""

    done: set[int]
    failed: dict[int, str]
    poison: dict[int, str]
    tries: int

    @property
    def named(self) -> set[int]:
        """Every record that is left to be settled."""
        return self.done | self.failed.keys() | self.poison.keys()

    @property
    def empty(self) -> bool:
        """Whether all of it is written."""
        return not (self.done or self.failed or self.poison)

    def forget(self, sequences: Iterable[int]) -> None:
        """These are written."""
        gone = set(sequences)
        self.done -= gone
        self.failed = {one: why for one, why in self.failed.items() if one not in gone}
        self.poison = {one: why for one, why in self.poison.items() if one not in gone}

    def step(self, pipeline: str, position: Position, window: Window, now: float) -> Step:
        """The next transaction. What does not wait is settled already, and named for nothing."""
        step = Step()
        held = {
            one.record.sequence: one
            for cursor in window.cursors.values()
            for one in cursor.records.values()
        }
        again = {record.sequence: record for record in window.again}
        waits = {**{one: h.record for one, h in held.items()}, **again}
        for one in sorted(self.done):
            if one in again and len(step.writes) >= _ASIDE:
                return self._written(pipeline, position, window, held, step)
            step.named.add(one)
            if one not in waits:
                continue
            step.gone.add(one)
            position.failing.pop(one, None)
            if one in again:
                position.again -= 1
                step.writes.append(put_aside("settled", Parked(again[one], "", 0, now)))
        size = 0
        for one, why, sure in self._to_try():
            record = waits.get(one)
            if record is None or one in step.gone:
                step.named.add(one)
                continue
            tries, _ = position.failing.get(one, (0, 0.0))
            parks = sure or tries + 1 >= self.tries
            size += 2 * len(record.data) if parks else 0
            if parks and (len(step.writes) >= _ASIDE or (step.parked and size > _ASIDE_BYTES)):
                break  # the rest in a transaction of its own
            step.named.add(one)
            if not parks:
                position.failing[one] = (tries + 1, now)
                continue
            position.failing.pop(one, None)
            position.parked += 1
            position.again -= one in again
            step.gone.add(one)
            step.parked.append(one)
            count = max(tries, 1) if sure else tries + 1
            step.writes.append(put_aside("parked", Parked(record, why, count, now)))
        return self._written(pipeline, position, window, held, step)

    def _written(
        self,
        pipeline: str,
        position: Position,
        window: Window,
        held: dict[int, Held],
        step: Step,
    ) -> Step:
        """The step with the position's own write, if anything changed."""
        _move(position, window, held, step.gone)
        if step.gone or any(one in position.failing for one in step.named):
            step.writes.insert(0, put_position(pipeline, position))
        return step

    def _to_try(self) -> Iterator[tuple[int, str, bool]]:
        for one, why in sorted(self.poison.items()):
            yield one, why, True
        for one, why in sorted(self.failed.items()):
            if one not in self.poison:
                yield one, why, False


def _move(position: Position, window: Window, held: dict[int, Held], gone: set[int]) -> None:
    """Enter into the position what of each shard is settled now."""
    removed: dict[int, set[int]] = {}
    for one in gone & held.keys():
        shard, number = place_of(one)
        removed.setdefault(shard, set()).add(number)
    for id, cursor in window.cursors.items():
        numbers = removed.get(shard_number(id))
        if not numbers:
            continue
        left = [one for number, one in cursor.records.items() if number not in numbers]
        if not left:
            position.shards[id] = settled_of(cursor)
            continue
        reached = max(position.shards.get(id, Settled()).reached, *numbers)
        open = [one.number for one in left if one.number <= reached]
        position.shards[id] = Settled(reached, open, left[0].arrived)


def take_again(tables: Tables, pipeline: str) -> int:
    """Let every parked record wait again; gives how many."""
    index, count = index_of(pipeline, "parked"), 0
    for _ in range(_TRIES_TO_WRITE):
        left = [item.sk for item in tables.query_index(TABLE, index)]
        while left:
            position = read_position(tables.get(TABLE, pk(pipeline), position_key()))
            chosen: list[Parked] = []
            size = 0
            while left and len(chosen) < _ASIDE and size < _ASIDE_BYTES:
                item = tables.get(TABLE, pk(pipeline), left.pop())
                if item is None:
                    continue
                state, parked = read_aside(pipeline, item)
                if state == "parked":
                    chosen.append(parked)
                    size += 2 * len(parked.record.data)
            if not chosen:
                return count
            position.parked -= len(chosen)
            position.again += len(chosen)
            try:
                tables.transact(
                    [put_position(pipeline, position), *(put_aside("again", p) for p in chosen)]
                )
            except Conflict:
                break  # a consumer wrote meanwhile: all that is left is looked for anew
            count += len(chosen)
        else:
            return count
    raise Retryable(
        f"stream of {pipeline}", "others change it all the time", "end the other consumers"
    )


def accept_gap(tables: Tables, pipeline: str, shards: Shards, now: float) -> bool:
    """Go on from the oldest record that is kept, if more than that was not read in time; whether
    anything was changed.
    """
    for _ in range(_TRIES_TO_WRITE):
        position = read_position(tables.get(TABLE, pk(pipeline), position_key()))
        listed = {shard.id for shard in shards.listed(anew=True)}
        gone = [id for id in position.shards if id not in listed]
        late = [
            one
            for one in position.shards.values()
            if one.as_of is not None and not one.finished and now - one.as_of > shards.retention()
        ]
        if not late and all(position.shards[id].finished for id in gone):
            return False
        for id in gone:
            del position.shards[id]
        for one in late:
            one.as_of = now
        position.failing = {}  # what expired is tried no more, and the others have new tries
        try:
            tables.transact([put_position(pipeline, position)])
        except Conflict:
            continue
        return True
    raise Retryable(
        f"stream of {pipeline}", "others change it all the time", "end the other consumers"
    )
