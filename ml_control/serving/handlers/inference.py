"""``POST /inference/{pipeline}``: predictions of the variant that an entity belongs to.

The entity decides the variant and nothing that a caller can write into a header. If that variant
fails, the champion answers, and the failure is the assigned variant's. A request id that was
answered before gives the same answer again, from the log; with other content it is a ``Conflict``.
A request that nobody could answer keeps its id free, for the caller's next try.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ml_control.core.capture import captured
from ml_control.core.records import Rollout
from ml_control.core.routing import to_challenger
from ml_control.errors import (
    BadObject,
    Conflict,
    MlControlError,
    NotProven,
    PlatformFailed,
    Retryable,
)
from ml_control.ports import Prediction, Reply
from ml_control.serving.handlers.bodies import MAX_BODY, Inference, decode
from ml_control.serving.handlers.desk import Desk
from ml_control.serving.handlers.messages import Answer, Refusal, Request
from ml_control.serving.handlers.steps import Do, Invoke, Look, Served, Snapshot, Steps, Write

_LONGEST = 300  # characters of a failure's reason


@dataclass(frozen=True)
class Assignment:
    """Where an entity belongs, and who may answer in its place, in this order."""

    variant: str
    challenger: bool
    share: float
    others: tuple[str, ...]


@dataclass
class _Asked:
    """What came of asking the variants."""

    served: Served | None = None
    predictions: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Arms:
    """Where entities belong: ``weight`` of them to the second variant, all others to the first."""

    first: Assignment
    second: Assignment | None
    weight: float


def arms(rollout: Rollout) -> Arms | None:
    """The variants that entities are dealt to under a Rollout; None when nothing is live."""
    live = rollout.live
    if live is None:
        return None
    weights, champion = rollout.weights, _champion(rollout)
    taking = [name for name in sorted(weights) if weights[name] > 0]
    second = rollout.challenger or next((name for name in taking if name != live), None)
    order = list(dict.fromkeys([*([champion] if champion else []), *taking]))

    def assignment(chosen: str) -> Assignment:
        return Assignment(
            chosen,
            challenger=chosen == rollout.challenger,
            share=rollout.share,
            others=tuple(name for name in order if name != chosen and name in rollout.variants),
        )

    # What the second does not take is the champion's, also when that is next to nothing.
    first = champion if champion and live == second else live
    return Arms(
        assignment(first),
        assignment(second) if second else None,
        weights.get(second, 0.0) if second else 0.0,
    )


def assign(rollout: Rollout, entity: str) -> Assignment | None:
    """The variant of an entity under a Rollout; None when nothing is live."""
    both = arms(rollout)
    if both is None:
        return None
    if both.second and to_challenger(rollout.id, entity, both.weight):
        return both.second
    return both.first


def _champion(rollout: Rollout) -> str | None:
    """The variant that serves the champion, whatever its weight."""
    found = (n for n, entry in rollout.variants.items() if entry.model_version == rollout.champion)
    return next(found, None)


def infer(request: Request, desk: Desk, *, pipeline: str) -> Steps:
    """Predictions for a body's records. Raises ``BadObject`` for records that do not fit,
    ``Conflict`` for a used request id, ``Refusal`` 503 when no variant answers.
    """
    began = time.perf_counter()
    body = decode(Inference, request.body)
    snapshot: Snapshot = yield Look(pipeline)
    if body.request_id is not None:
        logged = yield Do(lambda: desk.log.find(pipeline, body.request_id or ""))
        if logged is not None:
            return _again(logged, body, snapshot)
    request_id = body.request_id or secrets.token_hex(12)
    entity = body.entity_id or request_id
    assignment = assign(snapshot.rollout, entity)
    if assignment is None:
        step = f"run 'ml-control run {pipeline}'"
        raise Refusal(503, NotProven(pipeline, "no model is live", step))
    asked = yield from _ask(snapshot, assignment, body.records, desk)
    served = asked.served
    entry = Prediction(
        pipeline=pipeline,
        request_id=request_id if served else secrets.token_hex(12),
        entity_id=entity,
        rollout_id=snapshot.rollout.id,
        assigned=assignment.variant,
        challenger=assignment.challenger,
        share=assignment.share,
        served=served.variant if served else "",
        model_version=served.model_version if served else "",
        at=desk.clock(),
        latency=time.perf_counter() - began,
        rows=len(body.records),
        failed=bool(asked.failures),
        failure="; ".join(asked.failures)[:_LONGEST],
        records=captured(body.records, snapshot.log, request_id),
        answers=orjson.dumps(
            [{"label": one["label"], "score": one["score"]} for one in asked.predictions]
        ),
    )
    fresh = yield Write(entry, durable=snapshot.log.predictions == "durable")
    if served is None:
        error = Retryable(
            pipeline,
            f"no variant answered: {entry.failure}",
            "try again in a moment; see 'ml-control status'",
        )
        raise Refusal(503, error)
    if not fresh:  # another request with this id was answered meanwhile
        logged = yield Do(lambda: desk.log.find(pipeline, request_id))
        if logged is not None:
            return _again(logged, body, snapshot)
    return _answer(request_id, served.variant, served.model_version, asked.predictions)


def _ask(
    snapshot: Snapshot, assignment: Assignment, records: Sequence[dict[str, Any]], desk: Desk
) -> Any:
    """Ask the assigned variant, then those in its place. Raises ``BadObject`` when the records
    are refused by the first encoding that looks at them.
    """
    asked, fitted = _Asked(), False
    for name in (assignment.variant, *assignment.others):
        served = snapshot.variants.get(name)
        try:
            if served is None or served.features is None:
                why = served.unusable if served else "its endpoint is not known"
                raise PlatformFailed(f"variant {name}", why, "see 'ml-control status'")
            try:
                rows = desk.codec.encode(served.features, records)
            except BadObject as error:
                if not fitted:
                    raise
                raise PlatformFailed(f"variant {name}", error.reason) from error
            fitted = True
            if len(rows) > MAX_BODY:
                large = BadObject("body", "has more than 6 MB as numbers", "send fewer records")
                raise Refusal(413, large)
            reply: Reply = yield Invoke(served, rows)
            if reply.status != 200:
                told = reply.body[:200].decode(errors="replace")
                raise PlatformFailed(f"variant {name}", f"answered {reply.status}: {told}")
            asked.predictions = desk.codec.decode(served.features, len(records), reply.body)
        except BadObject:
            raise
        except MlControlError as error:
            asked.failures.append(f"{name}: {error.reason}")
        else:
            asked.served = served
            break
    return asked


def _again(logged: Prediction, body: Inference, snapshot: Snapshot) -> Answer:
    """The logged answer. Raises ``Conflict`` when other content was sent under this id.

    Content that was not kept cannot be compared; the entity and the number of records are.
    """
    kept = captured(body.records, snapshot.log, logged.request_id)
    entity = body.entity_id or logged.request_id
    same = (logged.entity_id, logged.rows) == (entity, len(body.records))
    if same and kept is not None and logged.records is not None:
        same = kept == logged.records
    if not same:
        raise Conflict(
            f"request {logged.request_id}",
            "was answered before, with other content",
            "send a new request_id",
        )
    features = next(
        (s.features for s in snapshot.variants.values() if s.model_version == logged.model_version),
        None,
    )
    predictions = orjson.loads(logged.answers)
    binary = features is not None and features.task == "binary"
    for one in predictions:
        one["probabilities"] = None
        if features is not None and binary:
            one["probabilities"] = features.decode([one["score"]])["probabilities"]
    return _answer(logged.request_id, logged.served, logged.model_version, predictions)


def _answer(
    request_id: str, variant: str, model_version: str, predictions: list[dict[str, Any]]
) -> Answer:
    answer = {
        "request_id": request_id,
        "variant": variant,
        "model_version": model_version,
        "predictions": predictions,
    }
    return Answer(200, orjson.dumps(answer))
