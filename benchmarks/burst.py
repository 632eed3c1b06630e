"""A burst of small files: what taking it in costs beside a bare loop, and the runs it gives."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml_control.core.pipeline import Pipeline
from ml_control.platform import open_platform
from ml_control.services.arrivals.intake import take_in
from ml_control.services.arrivals.requests import plan
from ml_control.services.authoring.pipelines import read_pipeline
from ml_control.settings import load_settings

FILES, PARTITIONS = 10_000, 4


def main() -> None:
    """Print files a second of both, their ratio, and the number of runs asked for."""
    pipeline = read_pipeline(Path(__file__).parents[1] / "pipelines" / "tumours" / "defs.yaml")
    assert pipeline is not None
    with tempfile.TemporaryDirectory() as folder:
        bare = _bare(Path(folder))
        ours, runs = _ours(Path(folder), pipeline)
    print(f"bare loop (rename, SHA-256, hard link): {FILES / bare:8,.0f} files/s")
    print(f"intake (and settled, durable, in order): {FILES / ours:8,.0f} files/s")
    print(f"ratio {ours / bare:.1f} times the bare loop's time")
    print(f"{FILES:,} files in {PARTITIONS} partitions: {runs} runs")


def _drop(landing: Path) -> list[Path]:
    files = []
    for i in range(FILES):
        day = (datetime.now(UTC) - timedelta(days=i % PARTITIONS)).date()
        folder = landing / f"dt={day}"
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{i}.csv")
        files[-1].write_text(f"a,b\n{i},{i}\n")
    return files


def _bare(root: Path) -> float:
    """The limit: what any intake has to do with each file, and nothing else."""
    files = _drop(root / "bare" / "landing")
    taken, lake = root / "bare" / "taken", root / "bare" / "lake"
    taken.mkdir()
    lake.mkdir()
    start = time.perf_counter()
    for number, file in enumerate(files):
        private = taken / f"{number}.csv"
        os.rename(file, private)  # noqa: PTH104 - the bare loop
        digest = hashlib.sha256(private.read_bytes()).hexdigest()
        os.link(private, lake / f"{number}.{digest[:16]}.csv")
        os.unlink(private)  # noqa: PTH108
    return time.perf_counter() - start


def _ours(root: Path, pipeline: Pipeline) -> tuple[float, int]:
    platform = open_platform(load_settings(home=root / "home"))
    _drop(platform.settings.landing / pipeline.name)
    runs = recorded = 0
    start = time.perf_counter()
    seen = at_once = platform.notifications.at_once
    while seen == at_once:
        taken = take_in(platform, pipeline, settle=0.0)
        seen, recorded = taken.seen, recorded + taken.recorded
        runs += len(plan(platform, pipeline, in_flight=set(), limit=1000).wanted)
    spent = time.perf_counter() - start
    assert recorded == FILES
    until = time.monotonic() + 60
    while time.monotonic() < until and runs < PARTITIONS:  # quiet is waited for, not measured
        time.sleep(1.0)
        runs += len(plan(platform, pipeline, in_flight=set(), limit=1000).wanted)
    return spent, runs


if __name__ == "__main__":
    main()
