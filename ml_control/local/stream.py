"""The stream on this machine: one SQLite file for each pipeline, one shard each.

    <root>/<pipeline>.db       records   what nobody has processed yet, in the order of putting
                               failed    tries of those that could not be processed
                               parked    those that nobody could
                               shard     the next sequence number, and counts
    <root>/<pipeline>.lock     held by whoever consumes

A record leaves ``records`` when it is settled, so the file does not grow with what was consumed.
Order is kept for each key: while a failed record waits for its next try, later ones of its key
wait too, and those of other keys go on. (A Kinesis shard would block all of them.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ml_control.errors import InvalidSpec
from ml_control.local.database import Database
from ml_control.local.files import exclusive
from ml_control.ports import Parked, StreamRecord, StreamState, require_usable
from ml_control.spec import NAME

_LONGEST_WAIT = 60.0  # seconds between two tries
_AHEAD = 20_000  # records that one reading looks past, while those of a failed key wait
_KEPT_PAGES = 4096  # free pages that stay in the file for what comes next

# A new shard begins at the microsecond of its making: its numbers, and the request ids derived
# from them, are never those of an earlier file that was removed.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  sequence INTEGER PRIMARY KEY, key TEXT NOT NULL, data BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS failed (
  sequence INTEGER PRIMARY KEY, key TEXT NOT NULL, tries INTEGER NOT NULL, reason TEXT NOT NULL,
  tried_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS parked (
  sequence INTEGER PRIMARY KEY, key TEXT NOT NULL, data BLOB NOT NULL, at REAL NOT NULL,
  reason TEXT NOT NULL, tries INTEGER NOT NULL, parked_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS shard (
  one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL, waiting INTEGER NOT NULL,
  parked INTEGER NOT NULL);
INSERT OR IGNORE INTO shard
  VALUES (1, CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER), 0, 0)
"""


class SqliteStream:
    """Implements :class:`ml_control.ports.Stream`."""

    def __init__(
        self,
        root: Path,
        tries: int = 8,
        retry_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``tries`` of a failing record before it is parked; the wait before the second is
        ``retry_seconds``, and doubles up to a minute.
        """
        self._root = root
        self._tries = tries
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._files: dict[str, Database] = {}

    def put(self, records: Sequence[StreamRecord]) -> list[int]:
        """See ``ports.Stream``."""
        for record in records:
            require_usable(record)
        now, given = self._clock(), [0] * len(records)
        places: dict[str, list[int]] = {}
        for place, record in enumerate(records):
            places.setdefault(record.pipeline, []).append(place)
        for pipeline, chosen in places.items():
            with self._file(pipeline).write(durable=True) as connection:
                begin = _insert(connection, [records[place] for place in chosen], now)
            for sequence, place in enumerate(chosen, begin):
                given[place] = sequence
        return given

    def exclusive(self, pipeline: str, patience: float = 0.0) -> AbstractContextManager[None]:
        """See ``ports.Stream``."""
        return exclusive(self._path(pipeline, "lock"), patience, f"stream of {pipeline}")

    def read(self, pipeline: str, limit: int) -> list[StreamRecord]:
        """See ``ports.Stream``."""
        with self._file(pipeline).read() as connection:
            if connection is None:
                return []
            failed = connection.execute("SELECT sequence, key, tries, tried_at FROM failed")
            waits = {sequence: (key, tries, at) for sequence, key, tries, at in failed}
            ahead = limit if not waits else limit + _AHEAD
            rows = connection.execute(
                "SELECT sequence, key, data, at FROM records ORDER BY sequence LIMIT ?", (ahead,)
            )
            if not waits:
                return [StreamRecord(pipeline, k, data, s, at) for s, k, data, at in rows]
            found: list[StreamRecord] = []
            blocked: set[str] = set()
            now = self._clock()
            for sequence, key, data, at in rows:
                if len(found) == limit:
                    break
                if sequence in waits and not self._due(waits[sequence][1], waits[sequence][2], now):
                    blocked.add(key)
                if key not in blocked:
                    found.append(StreamRecord(pipeline, key, data, sequence, at))
            return found

    def _due(self, tries: int, tried_at: float, now: float) -> bool:
        """Whether its wait is over; a try in the future was before the clock was set back."""
        wait = min(self._retry_seconds * 2.0 ** min(tries - 1, 30), _LONGEST_WAIT)
        return not tried_at <= now < tried_at + wait

    def settle(
        self,
        pipeline: str,
        done: Collection[int],
        failed: Mapping[int, str],
        poison: Mapping[int, str] | None = None,
    ) -> list[int]:
        """See ``ports.Stream``."""
        poison = poison or {}
        now = self._clock()
        # Lost in a power failure, records come again; their results are known by then.
        with self._file(pipeline).write(durable=bool(poison or failed)) as connection:
            gone = _remove(connection, done)
            parked = [s for s, why in poison.items() if _park(connection, s, why, now)]
            for sequence, reason in failed.items():
                row = connection.execute(
                    "INSERT INTO failed SELECT sequence, key, 1, ?2, ?3 FROM records "
                    "WHERE sequence = ?1 ON CONFLICT (sequence) DO UPDATE SET tries = tries + 1, "
                    "reason = excluded.reason, tried_at = excluded.tried_at RETURNING tries",
                    (sequence, reason, now),
                ).fetchone()
                if row is not None and row[0] >= self._tries:
                    _park(connection, sequence, reason, now)
                    parked.append(sequence)
            connection.execute(
                "UPDATE shard SET waiting = waiting - ?, parked = parked + ?",
                (gone + len(parked), len(parked)),
            )
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        if free > 2 * _KEPT_PAGES:
            self._file(pipeline).shrink(free - _KEPT_PAGES)
        return parked

    def parked(self, pipeline: str, limit: int = 1000) -> list[Parked]:
        """See ``ports.Stream``."""
        with self._file(pipeline).read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT sequence, key, data, at, reason, tries, parked_at FROM parked "
                "ORDER BY sequence LIMIT ?",
                (limit,),
            )
            return [
                Parked(StreamRecord(pipeline, key, data, sequence, at), reason, tries, parked_at)
                for sequence, key, data, at, reason, tries, parked_at in rows
            ]

    def replay(self, pipeline: str) -> int:
        """See ``ports.Stream``."""
        with self._file(pipeline).read() as connection:
            if connection is None:
                return 0
        with self._file(pipeline).write(durable=True) as connection:
            again = connection.execute(
                "INSERT INTO records SELECT sequence, key, data, at FROM parked"
            ).rowcount
            connection.execute("DELETE FROM parked")
            connection.execute("UPDATE shard SET waiting = waiting + ?, parked = 0", (again,))
        return again

    def state(self, pipeline: str) -> StreamState:
        """See ``ports.Stream``."""
        with self._file(pipeline).read() as connection:
            if connection is None:
                return StreamState()
            connection.execute("BEGIN")  # one moment for all of it
            try:
                following, waiting, parked = connection.execute(
                    "SELECT next, waiting, parked FROM shard"
                ).fetchone()
                first = connection.execute(
                    "SELECT sequence, at FROM records ORDER BY sequence LIMIT 1"
                ).fetchone()
                (failing,) = connection.execute("SELECT COUNT(*) FROM failed").fetchone()
            finally:
                connection.execute("COMMIT")
            checkpoint = first[0] - 1 if first else following - 1
            return StreamState(waiting, failing, parked, checkpoint, first[1] if first else None)

    def close(self) -> None:
        """Close this thread's connections."""
        for file in self._files.values():
            file.close()

    def _file(self, pipeline: str) -> Database:
        found = self._files.get(pipeline)
        if found is None:
            path = self._path(pipeline, "db")
            found = self._files.setdefault(pipeline, Database(path, _SCHEMA))
        return found

    def _path(self, pipeline: str, kind: str) -> Path:
        if not NAME.match(pipeline):
            raise InvalidSpec(
                f"stream {pipeline[:60]!r}", "is no pipeline's name", "see 'ml-control check'"
            )
        return self._root / f"{pipeline}.{kind}"


def _insert(connection: Any, records: Sequence[StreamRecord], now: float) -> int:
    """Append records to the shard; gives the first one's number."""
    (begin,) = connection.execute("SELECT next FROM shard").fetchone()
    connection.executemany(
        "INSERT INTO records VALUES (?, ?, ?, ?)",
        ((sequence, one.key, one.data, now) for sequence, one in enumerate(records, begin)),
    )
    connection.execute("UPDATE shard SET next = next + ?1, waiting = waiting + ?1", (len(records),))
    return int(begin)


def _remove(connection: Any, sequences: Collection[int]) -> int:
    """Remove settled records; gives how many were there."""
    if not sequences:
        return 0
    first, last = min(sequences), max(sequences)
    if last - first + 1 == len(sequences):  # a whole run, as nearly always
        gone: int = connection.execute(
            "DELETE FROM records WHERE sequence BETWEEN ? AND ?", (first, last)
        ).rowcount
        connection.execute("DELETE FROM failed WHERE sequence BETWEEN ? AND ?", (first, last))
        return gone
    rows = [(sequence,) for sequence in sequences]
    gone = connection.executemany("DELETE FROM records WHERE sequence = ?", rows).rowcount
    connection.executemany("DELETE FROM failed WHERE sequence = ?", rows)
    return gone


def _park(connection: Any, sequence: int, reason: str, now: float) -> bool:
    """Set a record aside; False when it is not there any more."""
    moved: int = connection.execute(
        "INSERT INTO parked SELECT r.sequence, r.key, r.data, r.at, ?2, "
        "COALESCE(f.tries, 1), ?3 FROM records r LEFT JOIN failed f USING (sequence) "
        "WHERE r.sequence = ?1",
        (sequence, reason, now),
    ).rowcount
    connection.execute("DELETE FROM records WHERE sequence = ?", (sequence,))
    connection.execute("DELETE FROM failed WHERE sequence = ?", (sequence,))
    return moved == 1
