"""Logged requests replayed on a challenger before it takes any traffic."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_control.core.features import FeatureSpec, csv_row
from ml_control.core.hosting import SERVERLESS_BYTES
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Lease, Rollout
from ml_control.core.rows import bodies
from ml_control.core.tolerance import allowed
from ml_control.errors import BadObject, PlatformFailed, Retryable
from ml_control.platform import Platform
from ml_control.ports import Prediction
from ml_control.registry.experiments import Shadow
from ml_control.services.models.evidence import ARCHIVE
from ml_control.services.models.gatekeeper import Proven
from ml_control.services.releases.deployment import Say, parse_predictions

_EXAMPLES = 5


@dataclass
class _Tally:
    requests: int = 0
    records: int = 0
    failed: int = 0
    differing: int = 0
    compared: int = 0
    largest: float = 0.0
    total: float = 0.0
    because: str = ""
    examples: list[dict[str, Any]] = field(default_factory=list)


def replay(
    platform: Platform,
    pipeline: Pipeline,
    rollout: Rollout,
    variant: str,
    proven: Proven,
    lease: Lease,
    actor: str,
    say: Say,
) -> Shadow:
    """Ask a variant the newest logged requests, and keep how it answers beside what was answered.

    A request that the model cannot encode or refuses counts as failed, and so does one at which
    its server dies. Raises ``Retryable`` when the server lives and could not be reached: that
    says nothing of the model.
    """
    features = FeatureSpec.model_validate_json(proven.features)
    tally = _Tally()
    asked = platform.log.newest(pipeline.name, pipeline.spec.rollout.shadow_requests)
    endpoint, archive = rollout.variants[variant].endpoint, proven.model.files[ARCHIVE]
    for one in asked:
        tally.requests += 1
        try:
            answers = _ask(platform, pipeline, endpoint, features, one, archive)
        except Retryable:
            state = platform.endpoints.describe(endpoint).state
            if state == "InService":
                raise
            _fail(tally, one, f"its server did not survive it ({state})")
            break  # every other request would say the same
        except (BadObject, PlatformFailed) as error:
            _fail(tally, one, error.reason)
            continue
        _compare(tally, one, answers)
    shadow = Shadow(
        pipeline=pipeline.name,
        rollout=rollout.id,
        model_version=proven.model.version,
        beside=rollout.champion or "",
        requests=tally.requests,
        records=tally.records,
        failed=tally.failed,
        differing=tally.differing,
        largest=tally.largest,
        mean=tally.total / tally.compared if tally.compared else 0.0,
        because=tally.because,
        examples=tuple(tally.examples),
        at=platform.registry.clock(),
    )
    because = (
        f"answered {shadow.requests - shadow.failed} of {shadow.requests} logged requests, "
        f"{shadow.differing} of {shadow.records} records otherwise than they were answered "
        f"(largest difference {shadow.largest:.4g})"
    )
    say(f"variant {variant} {because}")
    registry = platform.registry
    registry.experiments.write_shadow(
        shadow, registry.leases.fence(lease), because=because, actor=actor
    )
    return shadow


def _ask(
    platform: Platform,
    pipeline: Pipeline,
    endpoint: str,
    features: FeatureSpec,
    asked: Prediction,
    archive: str,
) -> list[dict[str, Any]]:
    """The variant's answers to one logged request, as the gateway would give them."""
    masked = set(pipeline.spec.log.mask)
    rows = []
    for record in _json_list(asked.records or b"[]"):
        known = {name: value for name, value in record.items() if name not in masked}
        rows.append(csv_row(features.encode_record(known)))
    answers: list[list[float]] = []
    for body in bodies(rows, SERVERLESS_BYTES):  # it may have been asked where more was taken
        reply = platform.endpoints.invoke(endpoint, body, archive=archive)
        if reply.status != 200:
            said = reply.body[:200].decode(errors="replace")
            told = f"status {reply.status}: {said}"
            raise PlatformFailed(endpoint, told, "see the endpoint's log")
        answers += parse_predictions(reply.body)
    return [features.decode(row) for row in answers]


def _compare(tally: _Tally, asked: Prediction, answers: Sequence[dict[str, Any]]) -> None:
    before = _json_list(asked.answers)
    tally.records += len(answers)
    for old, new in zip(before, answers, strict=False):
        score = old.get("score")
        if not isinstance(score, int | float):
            continue
        apart = abs(float(score) - float(new["score"]))
        label = new["label"]
        differs = apart > allowed(float(score), abs(float(score))) if label is None else (
            label != old.get("label")
        )  # fmt: skip
        tally.compared += 1
        tally.total += apart
        tally.largest = max(tally.largest, apart)
        tally.differing += differs
        if differs and len(tally.examples) < _EXAMPLES:
            said = {"label": old.get("label"), "score": score}
            now = {"label": label, "score": new["score"]}
            tally.examples.append({"request": asked.request_id, "was": said, "now": now})


def _fail(tally: _Tally, asked: Prediction, why: str) -> None:
    tally.failed += 1
    tally.because = tally.because or f"request {asked.request_id}: {why}"


def _json_list(data: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise BadObject("logged request", f"is not JSON: {error}", "see the log") from error
    if not isinstance(found, list):
        raise BadObject("logged request", "is no list of records", "see the log")
    return found
