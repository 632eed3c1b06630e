"""Whether an experiment can come to its decision at the rate that outcomes are logged at."""

from __future__ import annotations

from ml_control.core.experiment import ExperimentSettings, reachable
from ml_control.core.live_quality import WINDOW_DAYS, busiest
from ml_control.core.pipeline import Pipeline
from ml_control.errors import MlControlError
from ml_control.platform import Platform, open_platform
from ml_control.settings import Settings

_DAY = 86400.0


def too_few(settings: Settings, pipeline: Pipeline) -> str | None:
    """Why ``rollout.min_samples`` cannot be reached in ``rollout.max_duration``, if so.

    The rate is that of the busiest of the last seven days, and every outcome counts as another
    entity: what is said cannot be reached could not be in the best case. None where nothing was
    logged, or what was logged cannot be read: then nothing is known.
    """
    if pipeline.spec.rollout.strategy != "ab_test" or not (settings.home / "registry.db").is_file():
        return None
    try:
        rate = _rate(open_platform(settings), pipeline)
    except MlControlError:
        return None
    if rate is None:
        return None
    rollout = pipeline.spec.rollout
    asked = ExperimentSettings(
        kind=rollout.metric.kind,
        alpha=rollout.alpha,
        min_samples=rollout.min_samples,
        max_duration=rollout.max_duration,
    )
    return reachable(asked, rate, rollout.challenger_weight)


def _rate(platform: Platform, pipeline: Pipeline) -> float | None:
    """Outcomes a second on the busiest day; None where nothing can be told."""
    now, log = platform.registry.clock(), platform.log
    sums = platform.registry.outcomes.get(pipeline.name)
    if found := busiest(sums, now):
        return found / _DAY
    if log.joined(pipeline.name, sums.offset, 1):
        return None  # outcomes that nobody has counted yet
    return 0.0 if log.count(pipeline.name, now - WINDOW_DAYS * _DAY) else None
