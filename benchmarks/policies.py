"""Ticks of the policies with ten pipelines: the same with few and with many logged predictions.

What a tick costs is what changed since the last one, however much was logged before.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.profile import profile
from ml_control.core.records import (
    Dataset,
    DatasetPart,
    ModelVersion,
    PartitionState,
    Published,
    Variant,
)
from ml_control.platform import Platform, open_platform
from ml_control.ports import Outcome, Prediction
from ml_control.services.authoring.pipelines import read_pipeline
from ml_control.services.models.measures import take_outcomes
from ml_control.services.models.retraining import keep, observe_and_decide, tell
from ml_control.services.releases.rollout import due
from ml_control.services.traffic.live import reference_of
from ml_control.settings import load_settings

PIPELINES, FEW, MANY, NEW, WARM, TICKS = 10, 10_000, 1_000_000, 10, 3, 15
PARTITIONS, BATCH = 90, 5000
MODEL = "f" * 64
GOAL = 1.5

Tick = Callable[[Platform, Pipeline], None]


def retraining(platform: Platform, pipeline: Pipeline) -> None:
    """What the retraining sensor does in one tick, without Dagster's part."""
    take_outcomes(platform, pipeline)
    before = platform.registry.models.training(pipeline.name)
    seen, decision = observe_and_decide(platform, pipeline, ingesting=0, training=False)
    tell(platform, pipeline, seen, decision)
    keep(platform, before, seen, decision)


def rollout(platform: Platform, pipeline: Pipeline) -> None:
    """What the rollout sensor does in one tick of an experiment, without Dagster's part."""
    due(platform, pipeline)


# One line for each policy that ticks: name, and what its sensor does for a pipeline.
POLICIES: dict[str, Tick] = {"retraining": retraining, "rollout": rollout}


def main() -> None:
    """Print each policy's median tick of all pipelines at both sizes, and their ratio."""
    source = read_pipeline(Path(__file__).parents[1] / "pipelines" / "tumours" / "defs.yaml")
    assert source is not None
    pipelines = [named(source, f"p{i}") for i in range(PIPELINES)]
    found: dict[str, dict[int, float]] = {name: {} for name in POLICIES}
    for logged in (FEW, MANY):
        for name, seconds in _ticks(pipelines, logged).items():
            found[name][logged] = seconds
    for name, seconds in found.items():
        for logged, median in seconds.items():
            print(f"{name}: {PIPELINES} pipelines, {logged:>9,} logged: {1000 * median:7.2f} ms")
        ratio = seconds[MANY] / seconds[FEW]
        print(f"{name}: ratio {ratio:.2f} (goal: at most {GOAL})")


def named(source: Pipeline, name: str) -> Pipeline:
    """The pipeline under another name, retraining on drift and on many new rows only."""
    rules = source.spec.retrain.model_copy(update={"on_drift": True, "min_new_rows": 10**6})
    return replace(source, spec=source.spec.model_copy(update={"name": name, "retrain": rules}))


def _ticks(pipelines: Sequence[Pipeline], logged: int) -> dict[str, float]:
    """Median CPU seconds of a tick of all pipelines, by policy."""
    with tempfile.TemporaryDirectory() as folder:
        platform = open_platform(load_settings(home=Path(folder)))
        for pipeline in pipelines:
            set_up(platform, pipeline)
        fill(platform, pipelines, logged)
        for pipeline in pipelines:
            due(platform, pipeline)
        while sum(take_outcomes(platform, one) for one in pipelines):
            pass  # what was logged before is behind us, as in all but the first ticks
        found = {}
        next_one = logged
        for name, tick in POLICIES.items():
            times = []
            for number in range(TICKS):
                next_one += NEW
                for pipeline in pipelines:
                    log(platform, pipeline, range(next_one - NEW, next_one), told=1)
                start = time.process_time()
                for pipeline in pipelines:
                    tick(platform, pipeline)
                if number >= WARM:
                    times.append(time.process_time() - start)
            found[name] = statistics.median(times)
        platform.log.close()
        return found


def set_up(platform: Platform, pipeline: Pipeline) -> None:
    """A pipeline with a full window of partitions and a live model."""
    import numpy as np
    import polars as pl

    from ml_control.core.digests import canonical

    rng, columns = np.random.default_rng(0), pipeline.spec.columns
    values: dict[str, Any] = {one.name: rng.normal(5, 1, 3000) for one in columns.features}
    values[columns.target] = np.where(rng.random(3000) < 0.5, columns.positive, "other")
    known = profile(pl.DataFrame(values), pipeline.spec)
    parts = []
    for i in range(PARTITIONS):
        day = f"2026-{1 + i // 28:02d}-{1 + i % 28:02d}"
        published = Published(digest=f"{i:064x}", path=f"x/{i}", rows=100, at=1.0, run="setup")

        def filled(state: PartitionState, it: Published = published) -> PartitionState:
            return state.model_copy(
                update={"raw": it, "processed": it, "processed_from": it.digest}
            )

        platform.registry.partitions.update(pipeline.name, day, filled)
        parts.append(DatasetPart(partition=day, digest=published.digest, path="x", rows=100))
    dataset = Dataset(pipeline=pipeline.name, parts=tuple(parts))
    platform.lake.put(f"artifacts/{pipeline.name}/profiles/{dataset.digest}.json", canonical(known))
    model = ModelVersion(
        pipeline=pipeline.name,
        version=MODEL,
        files={},
        prefix="x",
        container="3.2-0",
        dataset=dataset,
        features_digest="x",
        test_set="x",
        training_job="x",
        hyperparameters={},
        best_iteration=1,
        rounds=1,
        metrics={"accuracy": 0.9},
        created_at=1.0,
        run="setup",
    )
    registry = platform.registry
    with registry.leases.hold(pipeline.name, "model", "setup") as lease:
        registry.models.register(model, registry.leases.fence(lease))
        before = registry.rollouts.get(pipeline.name)
        variants = {
            name: Variant(endpoint=f"x-{name}", model_version=of, verdict="x", proven_live_at=1.0)
            for name, of in (("a", model.version), ("b", "e" * 64))
        }
        registry.rollouts.write(
            before,
            before.model_copy(
                update={
                    "id": "x",
                    "champion": model.version,
                    "variants": variants,
                    "weights": {"a": 0.5, "b": 0.5},
                    "challenger": "b",
                    "state": "in_progress",
                    "phase": "experiment",
                    "started_at": registry.clock(),
                }
            ),
            registry.leases.fence(lease),
            action="promoted",
            because="setup",
            actor="setup",
        )


def fill(platform: Platform, pipelines: Sequence[Pipeline], logged: int) -> None:
    """Log so many requests, one in a hundred with its outcome, and the last day's histograms."""
    share = logged // len(pipelines)
    for pipeline in pipelines:
        for start in range(0, share, BATCH):
            log(platform, pipeline, range(start, min(start + BATCH, share)), told=100)
        known = reference_of(platform, pipeline.name, MODEL)
        assert known is not None
        book, now = platform.registry.live, int(platform.registry.clock() // 3600)
        hours = {(MODEL, now - back): {**known, "prediction": {}} for back in range(24)}
        book.add(*book.state(pipeline.name), hours)


def log(platform: Platform, pipeline: Pipeline, numbers: range, told: int) -> None:
    """Log requests by number, one in ``told`` with its outcome."""
    at = platform.registry.clock()
    found = [
        Prediction(
            pipeline=pipeline.name,
            request_id=f"r{number}",
            entity_id=f"e{number}",
            rollout_id="x",
            assigned="ab"[number % 2],
            challenger=number % 2 == 1,
            share=0.5,
            served="ab"[number % 2],
            model_version=MODEL,
            at=at - number % 86400,
            latency=0.01,
            rows=1,
            answers=b'[{"label": "malignant", "score": 0.9}]',
        )
        for number in numbers
    ]
    platform.log.append(found)
    joins = [
        platform.log.submit_outcomes(pipeline.name, f"r{number}", [_outcome(number, at)])
        for number in numbers
        if number % told == 0
    ]
    for join in joins:
        join.result()


def _outcome(number: int, at: float) -> Outcome:
    return Outcome(index=0, value="malignant" if number % 7 else "benign", at=at)


if __name__ == "__main__":
    main()
