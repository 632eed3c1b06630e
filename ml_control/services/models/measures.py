"""Drift and quality of what serves: from histograms and sums kept while it is logged.

Nothing here reads a logged request: a look costs what the columns and the new outcomes cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_control.core.drift import ColumnDrift
from ml_control.core.live_drift import drift_between
from ml_control.core.live_quality import added, fall, value_of
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import ModelVersion
from ml_control.core.retraining import Measured
from ml_control.core.training_state import TriggerKind
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.services.traffic.live import reference_of

WINDOWS = (86400.0, 7 * 86400.0)  # the longer one where the shorter has few rows
ENOUGH_ROWS = 500
OUTCOMES_A_TICK = 5000


def measure(platform: Platform, pipeline: Pipeline) -> Iterator[Measured]:
    """What can be measured of the champion now; nothing is not the same as no drift."""
    champion = platform.registry.rollouts.get(pipeline.name).champion
    if champion is None:
        return
    try:
        model = platform.registry.models.get(pipeline.name, champion)
        yield from _drift(platform, pipeline, model)
        yield from _quality(platform, pipeline, model)
    except (MlControlError, ValueError, KeyError):
        return  # a profile or histogram that cannot be read: not known


def take_outcomes(platform: Platform, pipeline: Pipeline) -> int:
    """Add newly joined outcomes to the sums; how many there were. Each is counted once."""
    book = platform.registry.outcomes
    before = book.get(pipeline.name)
    try:
        found = platform.log.joined(pipeline.name, before.offset, OUTCOMES_A_TICK)
    except MlControlError:
        return 0  # read at a later tick: the offset stays where it is
    if not found:
        return 0
    task = pipeline.spec.columns.task
    values = [
        (one.model_version, one.told_at, value_of(task, one.label, one.score, one.outcome))
        for one in found
    ]
    moved = book.move(before, added(before, max(one.offset for one in found), values))
    return len(found) if moved else 0


def _drift(platform: Platform, pipeline: Pipeline, model: ModelVersion) -> Iterator[Measured]:
    """Measured anew when histograms were flushed or an hour went by, else as it was."""
    now = platform.registry.clock()
    _, version = platform.registry.live.state(pipeline.name)
    bound = pipeline.spec.quality.drift.max_psi
    where = (str(platform.settings.home), pipeline.name)
    key = (model.version, version, int(now // 3600), bound)
    if _MEASURED.get(where, ((), ()))[0] != key:
        _MEASURED[where] = (key, tuple(_drift_now(platform, pipeline, model, now)))
    yield from _MEASURED[where][1]


_MEASURED: dict[tuple[str, str], tuple[tuple[Any, ...], tuple[Measured, ...]]] = {}


def _drift_now(
    platform: Platform, pipeline: Pipeline, model: ModelVersion, now: float
) -> Iterator[Measured]:
    found = _recent(platform, now, model)
    known = reference_of(platform, pipeline.name, model.version) if found else None
    if not found or not known:
        return
    rows = (int(found["rows"]), int(known["rows"]))
    features = drift_between(found["features"], known["features"], rows)
    yield from _farthest(pipeline, model, "live drift", "live requests", features)
    answers: Mapping[str, Any] = known["prediction"] or {}
    tested = max((int(one["count"]) for one in answers.values()), default=0)
    given = drift_between(found.get("prediction") or {}, answers, (rows[0], tested))
    yield from _farthest(pipeline, model, "prediction drift", "live predictions", given)


def _recent(platform: Platform, now: float, model: ModelVersion) -> Mapping[str, Any] | None:
    found = None
    for window in WINDOWS:
        found = platform.registry.live.merged(model.pipeline, model.version, now - window, now)
        if found is not None and found["rows"] >= ENOUGH_ROWS:
            break
    return found


def _farthest(
    pipeline: Pipeline,
    model: ModelVersion,
    kind: TriggerKind,
    what: str,
    found: Sequence[ColumnDrift],
) -> Iterator[Measured]:
    bound = pipeline.spec.quality.drift.max_psi
    if not found:
        return
    beyond = [one for one in found if one.beyond(bound)]
    worst = beyond[0] if beyond else found[0]
    yield Measured(
        kind=kind,
        subject=model.version,
        value=worst.psi,
        bound=bound,
        beyond=bool(beyond),
        because=f"{what}: {worst.name} with a PSI of {worst.psi:.3g}",
        over=bound / 2,
        worst=worst.name,
    )


def _quality(platform: Platform, pipeline: Pipeline, model: ModelVersion) -> Iterator[Measured]:
    metric = "mae" if pipeline.spec.columns.task == "regression" else "accuracy"
    if metric not in model.metrics:
        return
    found = fall(
        platform.registry.outcomes.get(pipeline.name),
        model.version,
        platform.registry.clock(),
        verdict=model.metrics[metric],
        test_rows=int(model.dataset.rows * pipeline.spec.training.split.test),
        lower_is_better=metric == "mae",
    )
    if found is None:
        return
    margin = pipeline.spec.gates.champion.margin
    bound = max(margin * (found.verdict if metric == "mae" else 1.0), found.chance)
    yield Measured(
        kind="quality",
        subject=model.version,
        value=found.fall,
        bound=bound,
        beyond=found.fall > bound,
        because=f"live {metric} {found.live:.4g} of {found.outcomes:,} outcomes, "
        f"{found.verdict:.4g} in its verdict",
        over=bound / 2,
    )
