"""Whether to train now: the observation behind the pure decision."""

from __future__ import annotations

from ml_control.core.pipeline import Pipeline
from ml_control.core.retraining import Decision, Observation, decide
from ml_control.platform import Platform
from ml_control.services.intake import partitions_with_work
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
        waiting=len(partitions_with_work(platform, pipeline)),
        training=training or registry.leases.holder(pipeline.name, "model") is not None,
        backfilling=registry.leases.holder(pipeline.name, BACKFILL_STAGE) is not None,
        now=registry.clock(),
    )
    decision = decide(
        registry.models.training(pipeline.name),
        seen,
        automatic=pipeline.spec.retrain.automatic,
        max_attempts=pipeline.spec.retrain.max_attempts,
    )
    return seen, decision
