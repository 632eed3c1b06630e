"""What is read from the log: single requests, ranges in order, and counters."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from ml_control.local.prediction_log.schema import SPAN
from ml_control.ports import LATENCY_BOUNDS, Joined, Logged, LogState, Prediction, Traffic

_BUCKETS = len(LATENCY_BOUNDS) + 1
_PREDICTION = """SELECT p.id, p.request_id, p.entity_id, p.at, p.latency, p.rows, p.failed,
p.failure, p.answers, r.id, c.assigned, c.challenger, c.share, c.served, c.model_version, {records}
FROM {table} JOIN contexts c ON c.no = p.context JOIN rollouts r ON r.no = c.rollout"""
_ONE = _PREDICTION.format(
    table="predictions p LEFT JOIN records b ON b.id = p.id", records="b.records"
)
# From the records outward, so that what has none costs nothing.
_CAPTURED = _PREDICTION.format(
    table="records b CROSS JOIN predictions p ON p.id = b.id", records="b.records"
)
_JOINED = """SELECT j.id, j.request_id, j.idx, j.entity_id, r.id, c.challenger, c.share, c.served,
c.model_version, j.label, j.score, j.outcome, j.predicted_at, j.told_at, j.first
FROM joined j JOIN contexts c ON c.no = j.context JOIN rollouts r ON r.no = c.rollout"""


def number_of(connection: sqlite3.Connection, pipeline: str) -> int | None:
    """The number of a pipeline; None when nothing was ever logged for it."""
    row = connection.execute("SELECT no FROM pipelines WHERE name = ?", (pipeline,)).fetchone()
    return None if row is None else int(row[0])


def find(connection: sqlite3.Connection, pipeline: str, request_id: str) -> Prediction | None:
    """One request."""
    row = connection.execute(
        f"{_ONE} WHERE p.request_id = ? "  # noqa: S608 - ours
        "AND p.pipeline = (SELECT no FROM pipelines WHERE name = ?)",
        (request_id, pipeline),
    ).fetchone()
    return None if row is None else _prediction(pipeline, row)


def is_known(connection: sqlite3.Connection, pipeline: str, request_id: str) -> bool:
    """Whether a request is logged."""
    return (
        connection.execute(
            "SELECT 1 FROM predictions WHERE request_id = ? "
            "AND pipeline = (SELECT no FROM pipelines WHERE name = ?)",
            (request_id, pipeline),
        ).fetchone()
        is not None
    )


def after(connection: sqlite3.Connection, pipeline: str, offset: int, limit: int) -> list[Logged]:
    """Requests after an offset, in order."""
    number = number_of(connection, pipeline)
    if number is None:
        return []
    rows = connection.execute(
        f"{_ONE} WHERE p.id > ? AND p.id < ? ORDER BY p.id LIMIT ?",
        (number * SPAN + max(0, offset), (number + 1) * SPAN, limit),
    )
    return [Logged(row[0] - number * SPAN, _prediction(pipeline, row)) for row in rows]


def newest(connection: sqlite3.Connection, pipeline: str, limit: int) -> list[Prediction]:
    """Answered requests with captured records, newest first."""
    number = number_of(connection, pipeline)
    if number is None:
        return []
    rows = connection.execute(
        f"{_CAPTURED} WHERE b.id >= ? AND b.id < ? AND c.served <> '' ORDER BY b.id DESC LIMIT ?",
        (number * SPAN, (number + 1) * SPAN, limit),
    )
    return [_prediction(pipeline, row) for row in rows]


def joined(connection: sqlite3.Connection, pipeline: str, offset: int, limit: int) -> list[Joined]:
    """Joined outcomes after an offset, in order."""
    number = number_of(connection, pipeline)
    if number is None:
        return []
    rows = connection.execute(
        f"{_JOINED} WHERE j.id > ? AND j.id < ? ORDER BY j.id LIMIT ?",
        (number * SPAN + max(0, offset), (number + 1) * SPAN, limit),
    )
    return [_joined(pipeline, row, number * SPAN) for row in rows]


def traffic(connection: sqlite3.Connection, pipeline: str, rollout_id: str) -> dict[str, Traffic]:
    """Counts of both arms of a rollout."""
    row = connection.execute(
        "SELECT no FROM rollouts WHERE id = ? AND pipeline = "
        "(SELECT no FROM pipelines WHERE name = ?)",
        (rollout_id, pipeline),
    ).fetchone()
    rollout = -1 if row is None else row[0]
    exposed = {
        arm: (entities, expected)
        for arm, entities, expected in connection.execute(
            "SELECT challenger, entities, expected FROM arms WHERE rollout = ?", (rollout,)
        )
    }
    counts: dict[Any, list[tuple[int, int, int]]] = {0: [], 1: []}
    for arm, *count in connection.execute(
        "SELECT challenger, bucket, requests, errors FROM arm_requests WHERE rollout = ?",
        (rollout,),
    ):
        counts[arm].append((count[0], count[1], count[2]))
    return {
        name: _traffic(counts[arm], *exposed.get(arm, (0, 0.0)))
        for name, arm in (("champion", 0), ("challenger", 1))
    }


def recent(connection: sqlite3.Connection, pipeline: str, since: float) -> dict[str, Traffic]:
    """Counts by assigned variant since a time, to the minute."""
    counts: dict[str, dict[int, tuple[int, int, int]]] = {}
    rows = connection.execute(
        "SELECT variant, bucket, SUM(requests), SUM(errors) FROM variant_minutes "
        "WHERE pipeline = (SELECT no FROM pipelines WHERE name = ?) AND minute >= ? "
        "GROUP BY variant, bucket",
        (pipeline, int(since // 60)),
    )
    for variant, bucket, requests, errors in rows:
        counts.setdefault(variant, {})[bucket] = (bucket, requests, errors)
    return {variant: _traffic(list(own.values())) for variant, own in counts.items()}


def count(connection: sqlite3.Connection, pipeline: str, since: float) -> int:
    """Requests since a time, to the minute."""
    row = connection.execute(
        "SELECT COALESCE(SUM(requests), 0) FROM minutes "
        "WHERE pipeline = (SELECT no FROM pipelines WHERE name = ?) AND minute >= ?",
        (pipeline, int(since // 60)),
    ).fetchone()
    return int(row[0])


def state(connection: sqlite3.Connection, pipeline: str) -> LogState:
    """Where the log of a pipeline stands: one row."""
    row = connection.execute(
        "SELECT next, next_join, waiting, expired, unjoinable FROM pipelines WHERE name = ?",
        (pipeline,),
    ).fetchone()
    if row is None:
        return LogState()
    return LogState(row[0] - 1, row[1] - 1, *row[2:])


def _traffic(
    buckets: Sequence[tuple[int, int, int]], entities: int = 0, expected: float = 0.0
) -> Traffic:
    latencies = [0] * _BUCKETS
    for bucket, requests, _ in buckets:
        latencies[bucket] += requests
    return Traffic(
        entities=entities,
        expected=expected,
        requests=sum(latencies),
        errors=sum(errors for _, _, errors in buckets),
        latencies=tuple(latencies),
    )


def _prediction(pipeline: str, row: Sequence[Any]) -> Prediction:
    return Prediction(
        pipeline=pipeline,
        request_id=row[1],
        entity_id=row[2],
        rollout_id=row[9],
        assigned=row[10],
        challenger=bool(row[11]),
        share=row[12],
        served=row[13],
        model_version=row[14],
        at=row[3],
        latency=row[4],
        rows=row[5],
        failed=bool(row[6]),
        failure=row[7],
        records=row[15],
        answers=row[8],
    )


def _joined(pipeline: str, row: Sequence[Any], begin: int) -> Joined:
    return Joined(
        offset=row[0] - begin,
        pipeline=pipeline,
        request_id=row[1],
        index=row[2],
        entity_id=row[3],
        rollout_id=row[4],
        challenger=bool(row[5]),
        share=row[6],
        served=row[7],
        model_version=row[8],
        label=row[9],
        score=float("nan") if row[10] is None else row[10],
        outcome=json.loads(row[11]),
        predicted_at=row[12],
        told_at=row[13],
        first=bool(row[14]),
    )
