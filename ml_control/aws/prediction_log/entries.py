"""What is asked to be written, checked before it waits for its commit."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ml_control.aws.prediction_log.keys import digest
from ml_control.core.joining import outcome_text
from ml_control.errors import BadObject
from ml_control.ports import Outcome, Prediction

LARGE = 1 << 20  # bytes: a request beyond that has a transaction of its own
_MOST = 3_250 << 10  # compressed bytes of one request, for a transaction takes 4 MB
_MOST_AT = 1e18
_logger = logging.getLogger("ml_control")


@dataclass(slots=True, eq=False)
class Entry:
    """A request to be logged, encoded."""

    prediction: Prediction
    id: str  # the digests of request, rollout and entity
    rollout: str
    entity: str
    row: bytes
    records: bytes | None
    tried: set[str] = field(default_factory=set)  # commits of it whose answer was lost

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return len(self.row) + len(self.records or b"")


@dataclass(slots=True, eq=False)
class Telling:
    """Outcomes to be noted for a request."""

    request_id: str
    id: str
    outcomes: list[tuple[int, str, float]]  # index, value as JSON, when it was told
    tried: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Step:
    """Other work within a commit of its own: it is given the draft."""

    work: Callable[[Any], Any]
    tried: set[str] = field(default_factory=set)


Unit = Entry | Telling | Step


def entry_of(prediction: Prediction) -> Entry:
    """A request, encoded. Raises ``BadObject`` for one that cannot be written."""
    p = prediction
    numbers = p.at, p.latency, p.share
    try:
        if not all(math.isfinite(number) for number in numbers) or abs(p.at) > _MOST_AT:
            raise ValueError("a time, latency or share is no number")
        row = orjson.dumps(
            [
                p.request_id, p.entity_id, p.rollout_id, p.assigned, bool(p.challenger), p.share,
                p.served, p.model_version, p.at, p.latency, p.rows, bool(p.failed), p.failure,
                p.answers.decode("latin-1"),
            ]
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise BadObject(
            "prediction log", f"cannot be written: {error}", "correct the request"
        ) from error
    ids = digest(p.request_id), digest(p.rollout_id), digest(p.entity_id)
    return Entry(p, *ids, row, p.records)


def fit(entry: Entry) -> None:
    """Make a large request one that fits a transaction: answers are always kept, records that are
    too large are not captured. Raises ``BadObject`` when the answers alone do not fit.
    """
    if entry.size <= LARGE:
        return
    answers = len(zlib.compress(entry.row, 1))
    if answers > _MOST:
        raise BadObject(
            f"{entry.prediction.pipeline} {entry.prediction.request_id}",
            f"its answers are {answers} bytes, compressed; a commit takes {_MOST}",
            "send fewer records in a request",
        )
    if entry.records and answers + len(zlib.compress(entry.records, 1)) > _MOST:
        _logger.warning(
            "%s: the records of request %s are too large to be captured: %d bytes",
            entry.prediction.pipeline, entry.prediction.request_id, len(entry.records),
        )  # fmt: skip
        entry.records = None


def telling_of(request_id: str, outcomes: Sequence[Outcome]) -> Telling:
    """Outcomes of a request. Raises ``BadObject`` for what is no outcome."""
    told = [(one.index, outcome_text(request_id, one.index, one.value), one.at) for one in outcomes]
    for _, text, at in told:
        try:
            text.encode()
            if not math.isfinite(at):
                raise ValueError("the time is no number")
        except ValueError as error:
            raise BadObject(request_id, f"cannot be written: {error}", "correct it") from error
    return Telling(request_id, digest(request_id), told)


def row_prediction(pipeline: str, row: Sequence[Any], records: bytes | None) -> Prediction:
    """The request that a row of a group is."""
    return Prediction(
        pipeline=pipeline, request_id=row[0], entity_id=row[1], rollout_id=row[2],
        assigned=row[3], challenger=row[4], share=row[5], served=row[6], model_version=row[7],
        at=row[8], latency=row[9], rows=row[10], failed=row[11], failure=row[12], records=records,
        answers=row[13].encode("latin-1"),
    )  # fmt: skip
