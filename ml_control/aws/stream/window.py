"""What one pipeline sees of the stream now: its cursors, cut to what its position says."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from ml_control.aws.stream.envelope import place_of, sequence_of, shard_number
from ml_control.aws.stream.position import (
    TABLE,
    Position,
    Settled,
    index_of,
    read_aside,
)
from ml_control.aws.stream.shards import HORIZON, Cursor, Place, Shard, Shards, lost
from ml_control.ports import StreamRecord, Tables

_MOST_PAGES = 200  # of one shard in one call: what is left comes with the next


class Window:
    """The shards that a pipeline may read at its position, and the records that wait in memory."""

    def __init__(self, shards: Shards, tables: Tables, pipeline: str, position: Position) -> None:
        """Raises ``Unknown`` when a shard that was not read to its end is gone."""
        self._shards = shards
        self._tables = tables
        self._pipeline = pipeline
        self._position = position
        self._asked: dict[str, int] = {}
        self.again = self._read_again()
        for id, settled in position.shards.items():
            if not settled.finished and not shards.has(id):
                raise lost(pipeline, id, settled.as_of or 0.0)
        self.cursors: dict[str, Cursor] = {}
        self._open()

    def _open(self) -> None:
        """Take up the shards that may be read: all whose parents were read to their ends."""
        listed = {shard.id: shard for shard in self._shards.listed()}
        for id, shard in listed.items():
            settled = self._position.shards.get(id, Settled())
            if id in self.cursors or settled.finished:
                continue
            if not all(self._is_read(parent) for parent in shard.parents if parent in listed):
                continue
            # A shard that is new to us was not read since its forerunners were.
            as_of = settled.as_of if id in self._position.shards else self._position.as_of
            cursor = self._shards.cursor(self._pipeline, shard, settled.begin, as_of)
            self.cursors[id] = cursor
            self._cut(id)

    def _cut(self, id: str) -> None:
        """Drop what the position says is settled: by another process, or before this one began."""
        settled, cursor = self._position.shards.get(id, Settled()), self.cursors[id]
        if not cursor.records or next(iter(cursor.records)) > settled.reached:
            return
        open = set(settled.open)
        for number in [one for one in cursor.records if one <= settled.reached]:
            if number not in open:
                cursor.drop(number)

    def _read_on(self, id: str) -> None:
        self._asked[id] = self._asked.get(id, 0) + 1
        self._shards.advance(self._pipeline, self._shard(id))
        self._cut(id)

    def _is_read(self, parent: str) -> bool:
        settled = self._position.shards.get(parent)
        cursor = self.cursors.get(parent)
        return (settled is not None and settled.finished) or (cursor is not None and cursor.ended)

    def _shard(self, id: str) -> Shard:
        return next(shard for shard in self._shards.listed() if shard.id == id)

    def waiting(self) -> list[list[StreamRecord]]:
        """The records in memory that are not settled, by shard, in order."""
        found: list[list[StreamRecord]] = []
        shards = {shard_number(id): cursor for id, cursor in self.cursors.items()}
        back: dict[int, list[StreamRecord]] = {}
        for record in self.again:
            back.setdefault(place_of(record.sequence)[0], []).append(record)
        for number in sorted({*shards, *back}):
            cursor = shards.get(number)
            records = [held.record for held in cursor.records.values()] if cursor else []
            if number in back:
                records = sorted([*records, *back[number]], key=lambda one: one.sequence)
            found.append(records)
        return found

    def first(self) -> StreamRecord | None:
        """The first record that waits."""
        return next((records[0] for records in self.waiting() if records), None)

    def advance(self, is_news: Callable[[float], bool]) -> bool:
        """Read on where there may be more and there is room; False when nothing was asked."""
        asked = False
        for id, cursor in list(self.cursors.items()):
            count = self._asked.get(id, 0)
            if cursor.ended or cursor.full or count >= _MOST_PAGES:
                continue
            if cursor.at_tip and (count or not is_news(cursor.looked)):
                continue
            self._read_on(id)
            asked = True
        before = len(self.cursors)
        self._open()
        return asked or len(self.cursors) > before

    def reach(self, sequences: Collection[int]) -> None:
        """Read until these records are in memory, if they are there at all."""
        wanted: dict[int, int] = {}
        for sequence in sequences:
            shard, number = place_of(sequence)
            wanted[shard] = max(number, wanted.get(shard, -1))
        while True:
            asked = False
            for id, cursor in list(self.cursors.items()):
                number, count = wanted.get(shard_number(id), -1), self._asked.get(id, 0)
                beyond = cursor.place >= Place(number, after=True)
                if beyond or cursor.ended or (cursor.at_tip and count) or count >= _MOST_PAGES:
                    continue
                self._asked[id] = count + 1
                self._shards.advance(self._pipeline, self._shard(id))
                asked = True
            before = len(self.cursors)
            self._open()
            if not asked and len(self.cursors) == before:
                return

    def drop(self, sequences: Collection[int]) -> None:
        """These are settled."""
        by_number = {shard_number(id): cursor for id, cursor in self.cursors.items()}
        for sequence in sequences:
            shard, number = place_of(sequence)
            if shard in by_number:
                by_number[shard].drop(number)

    def passed(self, position: Position, seconds: float) -> bool:
        """Enter into the position how far shards without waiting records were read; whether that
        is worth writing down.
        """
        worth = False
        for id, cursor in self.cursors.items():
            if cursor.records or not cursor.place.after or cursor.place == HORIZON:
                continue
            known = position.shards.get(id)
            if known is None or cursor.ended or _later(cursor.as_of, known.as_of, seconds):
                worth = True
                position.shards[id] = settled_of(cursor)
        for id in [id for id in position.shards if not self._shards.has(id)]:
            worth = True
            del position.shards[id]  # read to its end, and expired
        return worth

    def count_beyond(self, until: float) -> int:
        """How many more of the pipeline's records there are than memory has room for."""
        count = 0
        for id, cursor in self.cursors.items():
            if cursor.at_tip or cursor.ended:
                continue
            for page in self._shards.beyond(self._pipeline, self._shard(id), cursor.place):
                count += len(page)
                if time.monotonic() >= until:
                    return count
        return count

    def last_sequence(self) -> int:
        """The sequence number up to which everything was read; 0 when there was nothing yet."""
        places = [
            sequence_of(shard_number(id), cursor.place.number)
            for id, cursor in self.cursors.items()
            if cursor.place != HORIZON
        ]
        places += [
            sequence_of(shard_number(id), settled.reached)
            for id, settled in self._position.shards.items()
            if settled.reached != HORIZON.number
        ]
        return max(places, default=0)

    def _read_again(self) -> list[StreamRecord]:
        if not self._position.again:
            return []
        items = self._tables.query_index(TABLE, index_of(self._pipeline, "again"))
        return [read_aside(self._pipeline, item)[1].record for item in items]


def settled_of(cursor: Cursor) -> Settled:
    """Everything that a cursor read is settled."""
    return Settled(cursor.place.number, [], cursor.as_of, cursor.ended)


def _later(now: float | None, before: float | None, seconds: float) -> bool:
    return now is not None and (before is None or now - before > seconds)
