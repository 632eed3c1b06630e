"""What is dropped from the log: bulk that the lake has, and what is too old to be joined.

Each call is one short transaction's worth, so that the requests of a gateway do not wait for it.
"""

from __future__ import annotations

import sqlite3
import time

from ml_control.local.prediction_log.names import Names
from ml_control.local.prediction_log.schema import SPAN

_STEP = 2_000  # rows dropped of a table in one transaction


def prune(
    connection: sqlite3.Connection,
    names: Names,
    pipeline: str,
    flushed: int,
    flushed_joined: int,
    keep: int,
    seconds: float,
) -> bool:
    """See ``ports.PredictionLog.prune``; one step, and whether there may be more to drop."""
    number = names.pipeline(connection, pipeline)
    begin, old = number * SPAN, time.time() - seconds
    dropped = [
        _bulk(connection, begin, flushed, keep),
        _requests(connection, begin, flushed, old),
        _older(connection, "joined", "noted", begin, flushed_joined, old),
        _waiting(connection, number, old),
        connection.execute(
            "DELETE FROM set_aside WHERE id IN (SELECT id FROM set_aside WHERE pipeline = ? "
            "AND noted < ? ORDER BY id LIMIT ?)",
            (number, old, _STEP),
        ).rowcount,
        _exposures(connection, number, old),
    ]
    minute = int(old // 60)
    for table in ("minutes", "variant_minutes"):
        connection.execute(
            f"DELETE FROM {table} WHERE pipeline = ? AND minute < ?",  # noqa: S608 - ours
            (number, minute),
        )
    return max(dropped) >= _STEP


def _bulk(connection: sqlite3.Connection, begin: int, flushed: int, keep: int) -> int:
    """Drop captured records that the lake has, but for the newest ones."""
    row = connection.execute(
        "SELECT id FROM records WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1 OFFSET ?",
        (begin, begin + SPAN, keep),
    ).fetchone()
    if row is None:
        return 0
    return connection.execute(
        "DELETE FROM records WHERE id IN "
        "(SELECT id FROM records WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?)",
        (begin, min(row[0], begin + flushed), _STEP),
    ).rowcount


def _requests(connection: sqlite3.Connection, begin: int, flushed: int, old: float) -> int:
    last = _last_old(connection, "predictions", "at", begin, flushed, old)
    connection.execute("DELETE FROM records WHERE id >= ? AND id <= ?", (begin, last))
    return connection.execute(
        "DELETE FROM predictions WHERE id >= ? AND id <= ?", (begin, last)
    ).rowcount


def _older(
    connection: sqlite3.Connection, table: str, column: str, begin: int, flushed: int, old: float
) -> int:
    last = _last_old(connection, table, column, begin, flushed, old)
    return connection.execute(
        f"DELETE FROM {table} WHERE id >= ? AND id <= ?",  # noqa: S608 - ours
        (begin, last),
    ).rowcount


def _last_old(
    connection: sqlite3.Connection, table: str, column: str, begin: int, flushed: int, old: float
) -> int:
    """The last of the oldest rows, in order, that is before the time; at most a step of them."""
    last = -1
    for id, at in connection.execute(
        f"SELECT id, {column} FROM {table} WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?",  # noqa: S608
        (begin, begin + flushed, _STEP),
    ):
        if at >= old:
            break
        last = id
    return last


def _waiting(connection: sqlite3.Connection, number: int, old: float) -> int:
    """Give up outcomes whose request never came, and count them."""
    expired = connection.execute(
        "DELETE FROM waiting WHERE (pipeline, request_id, idx) IN (SELECT pipeline, request_id, "
        "idx FROM waiting WHERE pipeline = ? AND noted < ? ORDER BY noted LIMIT ?)",
        (number, old, _STEP),
    ).rowcount
    if expired:
        connection.execute(
            "UPDATE pipelines SET expired = expired + ?, waiting = waiting - ? WHERE no = ?",
            (expired, expired, number),
        )
    return expired


def _exposures(connection: sqlite3.Connection, number: int, old: float) -> int:
    """Forget the entities of rollouts that have had no request for so long; sums stay."""
    return connection.execute(
        "DELETE FROM exposures WHERE (rollout, entity_id) IN (SELECT e.rollout, e.entity_id "
        "FROM exposures e WHERE e.rollout IN (SELECT r.no FROM rollouts r WHERE r.pipeline = ? "
        "AND NOT EXISTS (SELECT 1 FROM arm_requests a WHERE a.rollout = r.no AND a.last_at >= ?)) "
        "LIMIT ?)",
        (number, old, _STEP),
    ).rowcount
