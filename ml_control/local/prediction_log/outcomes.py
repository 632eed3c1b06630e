"""Outcomes within one transaction: joined to their prediction, or kept until it comes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from ml_control.core.joining import answer_of, answers_of, outcome_text, require_same, unfit
from ml_control.errors import BadObject
from ml_control.local.prediction_log.names import Names
from ml_control.local.prediction_log.schema import SPAN
from ml_control.ports import Outcome

_PREDICTION = """SELECT id, context, request_id, entity_id, at, rows, failed, answers
FROM predictions WHERE pipeline = ? AND request_id = ?"""


def tell(
    connection: sqlite3.Connection,
    names: Names,
    pipeline: str,
    request_id: str,
    outcomes: Sequence[Outcome],
) -> list[str]:
    """See ``ports.PredictionLog.tell``. Nothing is written before everything was checked."""
    texts = [outcome_text(request_id, outcome.index, outcome.value) for outcome in outcomes]
    number = names.pipeline(connection, pipeline)
    row = connection.execute(_PREDICTION, (number, request_id)).fetchone()
    known = _known(connection, number, request_id, row[0] if row else None)
    answers = None if row is None else _answers(row)
    told: list[str] = []
    new: list[tuple[Outcome, str]] = []
    for outcome, text in zip(outcomes, texts, strict=True):
        if answers is not None and (why := unfit(outcome.index, answers)):
            raise BadObject(f"{pipeline} {request_id}", why, "correct the outcome")
        earlier = known.get(outcome.index)
        if earlier is not None:
            require_same(f"{pipeline} {request_id}", outcome.index, earlier, text)
        told.append("known" if earlier is not None else "waiting" if row is None else "joined")
        if earlier is None:
            known[outcome.index] = text
            new.append((outcome, text))
    if row is not None and answers is not None:
        _join(connection, number, row, answers, [(o.index, text, o.at) for o, text in new])
    elif new:
        now = time.time()
        connection.executemany(
            "INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?)",
            [(number, request_id, o.index, text, o.at, now) for o, text in new],
        )
        connection.execute(
            "UPDATE pipelines SET waiting = waiting + ? WHERE no = ?", (len(new), number)
        )
    return told


def join_waiting(connection: sqlite3.Connection, pipeline: int, begin: int, end: int) -> None:
    """Join what waited for the predictions with these ids; what cannot be is set aside."""
    rows = connection.execute(
        "SELECT p.id, p.context, p.request_id, p.entity_id, p.at, p.rows, p.failed, p.answers, "
        "w.idx, w.value, w.at FROM predictions p JOIN waiting w ON w.pipeline = p.pipeline AND "
        "w.request_id = p.request_id WHERE p.id >= ? AND p.id < ? ORDER BY p.id, w.idx",
        (begin, end),
    ).fetchall()
    for row in rows:
        index, text, at = row[8:]
        answers = _answers(row)
        if why := unfit(index, answers):
            _set_aside(connection, pipeline, row[2], (index, text, at), why)
        else:
            _join(connection, pipeline, row, answers, [(index, text, at)])
        connection.execute(
            "DELETE FROM waiting WHERE pipeline = ? AND request_id = ? AND idx = ?",
            (pipeline, row[2], index),
        )
    if rows:
        connection.execute(
            "UPDATE pipelines SET waiting = waiting - ? WHERE no = ?", (len(rows), pipeline)
        )


def _join(
    connection: sqlite3.Connection,
    pipeline: int,
    row: Sequence[Any],
    answers: Sequence[Any],
    outcomes: Sequence[tuple[int, str, float]],
) -> None:
    if not outcomes:
        return
    prediction, context, request_id, entity, predicted_at = row[:5]
    rollout, share = connection.execute(
        "SELECT rollout, share FROM contexts WHERE no = ?", (context,)
    ).fetchone()
    begin = connection.execute(
        "SELECT next_join FROM pipelines WHERE no = ?", (pipeline,)
    ).fetchone()[0]
    first = share > 0.0 and bool(
        connection.execute(
            "UPDATE exposures SET judged = 1 WHERE rollout = ? AND entity_id = ? AND judged = 0",
            (rollout, entity),
        ).rowcount
    )
    now = time.time()
    for place, (index, text, at) in enumerate(outcomes):
        label, score = answer_of(answers[index])
        connection.execute(
            "INSERT INTO joined VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (pipeline * SPAN + begin + place, prediction, index, context, request_id, entity,
             label, score, text, predicted_at, at, now, first and place == 0),
        )  # fmt: skip
    connection.execute(
        "UPDATE pipelines SET next_join = next_join + ? WHERE no = ?", (len(outcomes), pipeline)
    )


def _set_aside(
    connection: sqlite3.Connection,
    pipeline: int,
    request_id: str,
    outcome: tuple[int, str, float],
    reason: str,
) -> None:
    connection.execute(
        "INSERT INTO set_aside (pipeline, request_id, idx, value, at, noted, reason) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (pipeline, request_id, *outcome, time.time(), reason),
    )
    connection.execute("UPDATE pipelines SET unjoinable = unjoinable + 1 WHERE no = ?", (pipeline,))


def _known(
    connection: sqlite3.Connection, pipeline: int, request_id: str, prediction: int | None
) -> dict[int, str]:
    """Outcomes by index that this request has already."""
    if prediction is not None:
        rows = connection.execute(
            "SELECT idx, outcome FROM joined WHERE prediction = ?", (prediction,)
        )
    else:
        rows = connection.execute(
            "SELECT idx, value FROM waiting WHERE pipeline = ? AND request_id = ?",
            (pipeline, request_id),
        )
    return dict(rows)


def _answers(row: Sequence[Any]) -> list[Any]:
    return answers_of(row[7], failed=bool(row[6]))
