"""A tick with 10 new objects: the same with few and with many objects already in the lake."""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event, PartitionState, Published
from ml_control.platform import Platform, open_platform
from ml_control.services.alerts import attend
from ml_control.services.arrivals.intake import take_in
from ml_control.services.arrivals.requests import plan
from ml_control.services.arrivals.sweep import sweep
from ml_control.services.authoring.pipelines import read_pipeline
from ml_control.settings import load_settings

FEW, MANY, NEW, WARM, TICKS = 100, 100_000, 10, 5, 25


def main() -> None:
    """Print the median tick at both sizes and their ratio."""
    pipeline = read_pipeline(Path(__file__).parents[1] / "pipelines" / "tumours" / "defs.yaml")
    assert pipeline is not None
    seconds = {stored: _tick(pipeline, stored) for stored in (FEW, MANY)}
    for stored, median in seconds.items():
        print(f"{NEW} new objects, {stored:>7,} stored: {1000 * median:7.2f} ms a tick (median)")
    print(f"ratio {seconds[MANY] / seconds[FEW]:.2f} (1 = cost grows only with what is new)")
    print(f"a step of the sweep, in one tick of many: {1000 * _step(pipeline):.1f} ms")


def _tick(pipeline: Pipeline, stored: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        platform = open_platform(load_settings(home=Path(folder)))
        _fill(platform, pipeline.name, stored)
        _publish(platform, pipeline.name)
        sweep(platform, pipeline)  # a pass is behind us, as in all but one of many ticks
        day = datetime.now(UTC).date().isoformat()
        landing = platform.settings.landing / pipeline.name / f"dt={day}"
        times = []
        for tick in range(TICKS):
            landing.mkdir(parents=True, exist_ok=True)
            for i in range(NEW):
                (landing / f"{tick}-{i}.csv").write_text(f"{tick},{i}\n")
            start = time.perf_counter()
            taken = take_in(platform, pipeline, settle=0.0)
            sweep(platform, pipeline)
            plan(platform, pipeline, in_flight=set(), limit=4)
            attend(platform, pipeline.name)
            if tick >= WARM:
                times.append(time.perf_counter() - start)
            assert taken.recorded == NEW
            open_events = list(platform.registry.ledger.open_events(pipeline.name))
            platform.registry.ledger.move(open_events, "done", None)
        return statistics.median(times)


def _publish(platform: Platform, name: str) -> None:
    """Partitions with content that is published, as a pipeline that has run for months has."""

    def published(state: PartitionState) -> PartitionState:
        raw = Published(digest=state.partition, path="x", rows=1, at=0.0, run="setup")
        return state.model_copy(update={"raw": raw, "processed": raw, "processed_from": raw.digest})

    for i in range(250):
        day = f"2026-{1 + i % 9:02d}-{1 + i % 28:02d}"
        platform.registry.partitions.update(name, day, published)


def _fill(platform: Platform, name: str, count: int) -> None:
    for start in range(0, count, 5000):
        events = [
            Event(
                pipeline=name,
                partition=f"2026-{1 + i % 9:02d}-{1 + i % 28:02d}",
                bucket="raw",
                key=f"{name}/dt=x/{i}.csv",
                version=f"{i:064x}",
                size=1,
                path=f"raw/{name}/dt=x/{i}.{i:016x}.csv",
                state="done",
            )
            for i in range(start, min(start + 5000, count))
        ]
        platform.registry.ledger.record(name, events, [True] * len(events))


def _step(pipeline: Pipeline) -> float:
    """Seconds of one step of a pass over many objects in one folder."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(home=Path(folder))
        platform = open_platform(settings)
        area = platform.lake.local_path(f"raw/{pipeline.name}/dt=x/0.csv").parent
        _fill(platform, pipeline.name, MANY // 10)
        for i in range(MANY // 10):
            (area / f"{i}.{i:016x}.csv").touch()
        now = time.time() + 2 * settings.sweep_seconds
        platform.registry.clock = lambda: now  # type: ignore[method-assign]
        times = []
        for _ in range(9):
            start = time.perf_counter()
            done = sweep(platform, pipeline)
            times.append(time.perf_counter() - start)
            assert (settings.sweep_objects, 0) == (done.looked, done.found)
        return statistics.median(times)
