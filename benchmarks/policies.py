"""Ticks of the policies with ten pipelines: the same with few and with many logged predictions.

What a tick costs is what changed since the last one, however much was logged before.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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
from ml_control.ports import Joined
from ml_control.services.live import outcome_log, take_outcomes
from ml_control.services.pipelines import read_pipeline
from ml_control.services.retraining import keep, observe_and_decide, tell
from ml_control.settings import load_settings

PIPELINES, FEW, MANY, NEW, WARM, TICKS = 10, 10_000, 1_000_000, 10, 3, 15
PARTITIONS = 90
GOAL = 1.5

Tick = Callable[[Platform, Pipeline], None]


def retraining(platform: Platform, pipeline: Pipeline) -> None:
    """What the retraining sensor does in one tick, without Dagster's part."""
    take_outcomes(platform, pipeline, outcome_log(platform))
    before = platform.registry.models.training(pipeline.name)
    seen, decision = observe_and_decide(platform, pipeline, ingesting=0, training=False)
    tell(platform, pipeline, seen, decision)
    keep(platform, before, seen, decision)


# One line for each policy that ticks: name, and what its sensor does for a pipeline.
POLICIES: dict[str, Tick] = {"retraining": retraining}


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
        logs = Logs(logged)
        platform.registry.live = logs  # type: ignore[attr-defined]
        object.__setattr__(platform, "log", logs)
        for pipeline in pipelines:
            logs.add(pipeline, set_up(platform, pipeline))
        while any(take_outcomes(platform, one, logs) for one in pipelines):
            pass  # what was logged before is behind us, as in all but the first ticks
        found = {}
        for name, tick in POLICIES.items():
            times = []
            for number in range(TICKS):
                logs.more(NEW)
                start = time.process_time()
                for pipeline in pipelines:
                    tick(platform, pipeline)
                if number >= WARM:
                    times.append(time.process_time() - start)
            found[name] = statistics.median(times)
        return found


def set_up(platform: Platform, pipeline: Pipeline) -> dict[str, Any]:
    """A pipeline with a full window of partitions and a live model; gives the model's profile."""
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
        version="f" * 64,
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
        variant = Variant(
            endpoint="x", model_version=model.version, verdict="x", proven_live_at=1.0
        )
        registry.rollouts.write(
            before,
            before.model_copy(update={"champion": model.version, "variants": {"a": variant}}),
            registry.leases.fence(lease),
            action="promoted",
            because="setup",
            actor="setup",
        )
    return known


class Logs:
    """So many logged predictions with outcomes, kept as the log keeps them: hours and offsets."""

    def __init__(self, logged: int) -> None:
        self._logged = logged // PIPELINES
        self._profiles: dict[str, Mapping[str, Any]] = {}

    def add(self, pipeline: Pipeline, known: Mapping[str, Any]) -> None:
        """Log for this pipeline."""
        self._profiles[pipeline.name] = {**known, "rows": self._logged, "prediction": None}

    def more(self, count: int) -> None:
        """More outcomes for every pipeline."""
        self._logged += count

    def merged(self, pipeline: str, model_version: str, since: float) -> Mapping[str, Any]:
        """The histograms of the window."""
        return self._profiles[pipeline]

    def count(self, pipeline: str, since: float) -> int:
        """Requests since a time."""
        return self._logged

    def joined(self, pipeline: str, after: int, limit: int) -> list[Joined]:
        """Outcomes after an offset."""
        last = min(after + limit, self._logged)
        return [_joined(pipeline, offset) for offset in range(after + 1, last + 1)]


def _joined(pipeline: str, offset: int) -> Joined:
    return Joined(
        offset=offset,
        pipeline=pipeline,
        request_id=f"r{offset}",
        index=0,
        entity_id=f"e{offset}",
        rollout_id="x",
        challenger=False,
        share=0.0,
        served="a",
        model_version="f" * 64,
        label="malignant",
        score=0.9,
        outcome="malignant" if offset % 10 else "benign",
        predicted_at=time.time(),
        told_at=time.time(),
        first=True,
    )


if __name__ == "__main__":
    main()
