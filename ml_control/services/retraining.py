"""Whether to train now: the observation behind the pure decision."""

from __future__ import annotations

from ml_control.core.pipeline import Pipeline
from ml_control.core.retraining import Decision, Observation, decide
from ml_control.platform import Platform
from ml_control.services.requests import given_up, partitions_with_work
from ml_control.services.selection import published_digest

BACKFILL_STAGE = "backfill"


def observe_and_decide(
    platform: Platform, pipeline: Pipeline, *, ingesting: int, training: bool
) -> tuple[Observation, Decision]:
    """Look at the registry and decide; Dagster's runs in flight are told by the caller."""
    registry = platform.registry
    seen = Observation(
        published=published_digest(platform, pipeline),
        ingesting=ingesting,
        waiting=len(partitions_with_work(platform, pipeline) - given_up(platform, pipeline)),
        training=training or registry.leases.holder(pipeline.name, "model") is not None,
        backfilling=registry.leases.holder(pipeline.name, BACKFILL_STAGE) is not None,
        undeployed=_undeployed(platform, pipeline),
        now=registry.clock(),
    )
    decision = decide(
        registry.models.training(pipeline.name),
        seen,
        automatic=pipeline.spec.retrain.automatic,
        max_attempts=pipeline.spec.retrain.max_attempts,
    )
    return seen, decision


def _undeployed(platform: Platform, pipeline: Pipeline) -> bool:
    """Whether a run died between a passing verdict and the traffic that it earned."""
    models = platform.registry.models
    candidate = models.candidate(pipeline.name)
    if candidate is None:
        return False
    if candidate.version == platform.registry.rollouts.get(pipeline.name).champion:
        return False
    verdicts = models.verdicts(pipeline.name, candidate.version)
    return bool(verdicts) and verdicts[0].passed
