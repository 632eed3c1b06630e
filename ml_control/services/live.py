"""Drift and quality of what serves: from histograms and sums kept while it is logged.

Nothing here reads a logged request: a look costs what the columns and the new outcomes cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ml_control.core.drift import ColumnDrift
from ml_control.core.live_drift import drift_between
from ml_control.core.live_quality import added, fall, value_of
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import ModelVersion, TriggerKind
from ml_control.core.retraining import Measured
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.ports import Joined
from ml_control.services.drift import training_profile

WINDOWS = (86400.0, 7 * 86400.0)  # the longer one where the shorter has few rows
ENOUGH_ROWS = 500
OUTCOMES_A_TICK = 5000


class LiveProfiles(Protocol):
    """The live histograms of a model version since a time, shaped like a profile."""

    def merged(self, pipeline: str, model_version: str, since: float) -> Mapping[str, Any] | None:
        """``{"rows", "features": {...}, "prediction": {...}}``; None when nothing was logged."""
        ...


class OutcomeLog(Protocol):
    """The part of the prediction log that quality and rates are read from."""

    def joined(self, pipeline: str, after: int, limit: int) -> Sequence[Joined]:
        """Outcomes joined after an offset, in order."""
        ...

    def count(self, pipeline: str, since: float) -> int:
        """Requests logged since a time (UTC seconds), to the minute."""
        ...


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


def take_outcomes(platform: Platform, pipeline: Pipeline, log: OutcomeLog | None) -> int:
    """Add newly joined outcomes to the sums; how many there were. Each is counted once."""
    if log is None:
        return 0
    book = platform.registry.outcomes
    before = book.get(pipeline.name)
    try:
        found = log.joined(pipeline.name, before.offset, OUTCOMES_A_TICK)
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


def outcome_log(platform: Platform) -> OutcomeLog | None:
    """The platform's prediction log, if it has one."""
    return getattr(platform, "log", None)


def live_profiles(platform: Platform) -> LiveProfiles | None:
    """The registry's live histograms, if it has them."""
    return getattr(platform.registry, "live", None)


def _drift(platform: Platform, pipeline: Pipeline, model: ModelVersion) -> Iterator[Measured]:
    source = live_profiles(platform)
    found = _recent(source, platform.registry.clock(), model) if source else None
    if found is None:
        return
    rows = int(found["rows"])
    known = _profile(platform, model)
    features = drift_between(found["features"], known["features"], (rows, int(known["rows"])))
    yield from _farthest(pipeline, model, "live drift", "live requests", features)
    prediction, reference = found.get("prediction"), model.prediction
    if prediction and (summary := reference.get(prediction.get("kind", ""))):
        drifted = drift_between(
            {"prediction": prediction}, {"prediction": summary}, (rows, int(reference["rows"]))
        )
        yield from _farthest(pipeline, model, "prediction drift", "live predictions", drifted)


def _recent(source: LiveProfiles, now: float, model: ModelVersion) -> Mapping[str, Any] | None:
    found = None
    for window in WINDOWS:
        found = source.merged(model.pipeline, model.version, now - window)
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
    name = "" if worst.name == "prediction" else f"{worst.name} "
    yield Measured(
        kind=kind,
        subject=model.version,
        value=worst.psi,
        bound=bound,
        beyond=bool(beyond),
        because=f"{what}: {name}with a PSI of {worst.psi:.3g}",
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


def _profile(platform: Platform, model: ModelVersion) -> Mapping[str, Any]:
    """The champion's training profile; read once by each process, for it never changes."""
    key = (str(platform.settings.home), model.dataset.digest)
    if key not in _PROFILES:
        if len(_PROFILES) >= _PROFILES_KEPT:
            _PROFILES.clear()
        _PROFILES[key] = training_profile(platform, model.dataset)
    return _PROFILES[key]


_PROFILES: dict[tuple[str, str], Mapping[str, Any]] = {}
_PROFILES_KEPT = 32
