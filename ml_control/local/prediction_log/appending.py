"""Logging requests within one transaction: rows, counters, first exposures, waiting outcomes."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from ml_control.local.prediction_log.names import Names, context_of
from ml_control.local.prediction_log.outcomes import join_waiting
from ml_control.local.prediction_log.schema import SPAN
from ml_control.ports import LATENCY_BOUNDS, Prediction

_INSERT = """INSERT INTO predictions (id, pipeline, request_id, context, entity_id, at, latency,
rows, failed, failure, answers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (pipeline, request_id) DO NOTHING"""
_ARM_REQUESTS = """INSERT INTO arm_requests VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (rollout, challenger, bucket) DO UPDATE SET requests = requests + excluded.requests,
errors = errors + excluded.errors, last_at = max(last_at, excluded.last_at)"""
_MINUTES = """INSERT INTO minutes VALUES (?, ?, ?)
ON CONFLICT (pipeline, minute) DO UPDATE SET requests = requests + excluded.requests"""
_VARIANT_MINUTES = """INSERT INTO variant_minutes VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (pipeline, minute, variant, bucket) DO UPDATE SET
requests = requests + excluded.requests, errors = errors + excluded.errors"""
_ARMS = """INSERT INTO arms VALUES (?, ?, ?, ?)
ON CONFLICT (rollout, challenger) DO UPDATE SET entities = entities + excluded.entities,
expected = expected + excluded.expected"""


def append(
    connection: sqlite3.Connection, names: Names, predictions: Sequence[Prediction]
) -> list[bool]:
    """Log requests; whether each is new. Nothing is counted of those that are known."""
    if len({prediction.pipeline for prediction in predictions}) <= 1:
        return _append(connection, names, predictions)
    places: dict[str, list[int]] = {}
    for place, prediction in enumerate(predictions):
        places.setdefault(prediction.pipeline, []).append(place)
    told = [False] * len(predictions)
    for own in places.values():
        for place, new in zip(
            own, _append(connection, names, [predictions[i] for i in own]), strict=True
        ):
            told[place] = new
    return told


def _append(
    connection: sqlite3.Connection, names: Names, predictions: Sequence[Prediction]
) -> list[bool]:
    """The same for requests of one pipeline."""
    if not predictions:
        return []
    pipeline = names.pipeline(connection, predictions[0].pipeline)
    row = connection.execute("SELECT next FROM pipelines WHERE no = ?", (pipeline,)).fetchone()
    begin = pipeline * SPAN + int(row[0])
    contexts = [names.context(connection, context_of(p)) for p in predictions]
    inserted = connection.executemany(
        _INSERT,
        [
            (place, pipeline, p.request_id, context, p.entity_id, p.at, p.latency, p.rows,
             p.failed, p.failure, p.answers)
            for place, p, context in zip(
                range(begin, begin + len(predictions)), predictions, contexts, strict=True
            )
        ],
    ).rowcount  # fmt: skip
    new = [True] * len(predictions)
    if inserted < len(predictions):
        there = _ids(connection, begin, len(predictions))
        new = [place in there for place in range(begin, begin + len(predictions))]
        if not inserted:
            return new
    kept = [(begin + i, p) for i, p in enumerate(predictions) if new[i]]
    connection.executemany(
        "INSERT INTO records (id, records) VALUES (?, ?)",
        [(place, p.records) for place, p in kept if p.records is not None],
    )
    connection.execute(
        "UPDATE pipelines SET next = next + ? WHERE no = ?", (len(predictions), pipeline)
    )
    fresh = [prediction for _, prediction in kept]
    _count(connection, names, pipeline, fresh)
    _expose(connection, names, pipeline, fresh)
    if connection.execute(
        "SELECT 1 FROM waiting WHERE pipeline = ? LIMIT 1", (pipeline,)
    ).fetchone():
        join_waiting(connection, pipeline, begin, begin + len(predictions))
    return new


def _ids(connection: sqlite3.Connection, begin: int, count: int) -> set[int]:
    rows = connection.execute(
        "SELECT id FROM predictions WHERE id >= ? AND id < ?", (begin, begin + count)
    )
    return {row[0] for row in rows}


def _count(
    connection: sqlite3.Connection, names: Names, pipeline: int, predictions: Sequence[Prediction]
) -> None:
    """Add requests, errors and latencies to the counters of their arms, variants and minutes."""
    counts = Counter(
        (p.rollout_id, p.challenger, p.assigned, int(p.at // 60),
         bisect_left(LATENCY_BOUNDS, p.latency), p.failed)
        for p in predictions
    )  # fmt: skip
    arms: dict[tuple[str, bool, int], list[float]] = {}
    variants: dict[tuple[int, str, int], list[int]] = {}
    minutes: Counter[int] = Counter()
    for (rollout, challenger, variant, minute, bucket, failed), count in counts.items():
        arm = arms.setdefault((rollout, challenger, bucket), [0, 0, 0.0])
        arm[0] += count
        arm[1] += count * failed
        arm[2] = max(arm[2], 60.0 * minute)
        own = variants.setdefault((minute, variant, bucket), [0, 0])
        own[0] += count
        own[1] += count * failed
        minutes[minute] += count
    connection.executemany(
        _ARM_REQUESTS,
        [
            (names.rollout(connection, pipeline, rollout), challenger, bucket, *sums)
            for (rollout, challenger, bucket), sums in arms.items()
        ],
    )
    connection.executemany(_MINUTES, [(pipeline, *one) for one in minutes.items()])
    connection.executemany(
        _VARIANT_MINUTES, [(pipeline, *key, *sums) for key, sums in variants.items()]
    )


def _expose(
    connection: sqlite3.Connection, names: Names, pipeline: int, predictions: Sequence[Prediction]
) -> None:
    """Count entities that come for the first time while the rollout's challenger has a share."""
    rollouts: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        if prediction.share > 0.0:
            rollouts.setdefault(prediction.rollout_id, []).append(prediction)
    for id, own in rollouts.items():
        rollout = names.rollout(connection, pipeline, id)
        # In order where the share changes, for the first exposure's share counts.
        for share, run in groupby(own, lambda p: p.share):
            arms: tuple[list[str], list[str]] = ([], [])
            for prediction in run:
                arms[prediction.challenger].append(prediction.entity_id)
            _expose_run(connection, rollout, share, arms)


def _expose_run(
    connection: sqlite3.Connection,
    rollout: int,
    share: float,
    arms: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Requests at one share: entities of the champion's arm and of the challenger's."""
    new = [
        connection.executemany(
            "INSERT INTO exposures (rollout, entity_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(rollout, entity) for entity in entities],
        ).rowcount
        if entities
        else 0
        for entities in arms
    ]
    total = sum(new)
    if total:
        connection.executemany(
            _ARMS,
            [
                (rollout, False, new[0], total * (1.0 - share)),
                (rollout, True, new[1], total * share),
            ],
        )
