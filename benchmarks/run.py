"""``ml-control run`` on 1,000 rows against a bare script that does the same work by hand."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml_control.resources.instance import prepare_dagster_home
from ml_control.settings import load_settings

ROWS, COLUMNS, REPEATS = 1000, 12, 3
NAME = "shop"
_STEPS = ("raw", "processed", "model", "endpoint", "ab_config")


def write_shop(root: Path) -> tuple[Path, str]:
    """A pipeline folder and its CSV of 1,000 rows; gives the CSV and the day it belongs to."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, COLUMNS)).round(4)
    bought = x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=ROWS) / 2 > 0
    names = [f"x{i}" for i in range(COLUMNS)]
    lines = [",".join([*names, "bought"])]
    lines += [
        ",".join([*map(str, row), "yes" if yes else "no"])
        for row, yes in zip(x.tolist(), bought, strict=True)
    ]
    data = root / "shop.csv"
    data.write_text("\n".join(lines) + "\n")
    subprocess.run(
        [
            *_command(root),
            "init",
            str(root / "pipelines" / NAME),
            "--from",
            str(data),
            "--target",
            "bought",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return data, (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


def bare(root: Path, data: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the bare script as a whole process, and of each of its steps."""
    folder = root / f"bare-{time.monotonic_ns()}"
    folder.mkdir()
    suite = root / "pipelines" / NAME / "expectations.json"
    command = [sys.executable, "-m", "benchmarks.bare", *map(str, (data, suite)), "bought", "yes"]
    start = time.perf_counter()
    done = subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    steps: dict[str, float] = json.loads(done.stdout.splitlines()[-1])["steps"]
    return seconds, steps


def main() -> None:
    """Print both by step, and the ratio of whole processes (medians of pairs)."""
    ours, rival = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data, day = write_shop(root)
        for repeat in range(REPEATS + 1):
            theirs, steps = bare(root, data)
            seconds, told = _run(root / f"home-{repeat}", root, data, day)
            if repeat:  # the first pair warms the disk's cache up
                rival.append(theirs)
                ours.append(seconds)
        for name, value in steps.items():
            print(f"  bare script: {value:6.2f} s  {name}")
        for name, value in told.items():
            print(f"  ml-control:  {value:6.2f} s  {name}")
    ratio = statistics.median(a / b for a, b in zip(ours, rival, strict=True))
    print(
        f"ml-control run {statistics.median(ours):.1f} s, bare script "
        f"{statistics.median(rival):.1f} s: ratio {ratio:.2f} (goal: at most 2.5)"
    )


def _command(root: Path, home: Path | None = None) -> list[str]:
    home = home or root / "home"
    options = ["--home", str(home), "--pipelines", str(root / "pipelines")]
    return [sys.executable, "-m", "ml_control", *options]


def _run(home: Path, root: Path, data: Path, day: str) -> tuple[float, dict[str, float]]:
    target = home / "landing" / NAME / f"dt={day}" / data.name
    target.parent.mkdir(parents=True)
    target.write_bytes(data.read_bytes())
    start = time.perf_counter()
    subprocess.run([*_command(root, home), "run", NAME], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    told = _by_step(home, root)
    subprocess.run([*_command(root, home), "down"], check=True, capture_output=True)
    return seconds, {**told, "start, imports, records": seconds - sum(told.values())}


def _by_step(home: Path, root: Path) -> dict[str, float]:
    """Seconds of each asset's step, as Dagster recorded them."""
    from dagster import DagsterInstance

    prepare_dagster_home(load_settings(home, root / "pipelines"))
    found: dict[str, float] = {}
    with DagsterInstance.get() as instance:
        for run in instance.get_runs():
            for step in instance.get_run_step_stats(run.run_id):
                if step.start_time and step.end_time:
                    name = step.step_key.rpartition("__")[2]
                    found[name] = found.get(name, 0.0) + step.end_time - step.start_time
    os.environ.pop("DAGSTER_HOME", None)
    return {name: found[name] for name in _STEPS if name in found}


if __name__ == "__main__":
    main()
