"""5M x 30 CSV to published Parquet: our admit and process against the same work in pandas.

Each side is its own process; CPU time stands next to wall time because the machine may be shared.
``--full`` (or BENCHMARK_FULL=1) also ingests 20M rows, which needs about 12 GB of disk.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = int(os.environ.get("BENCHMARK_ROWS", "5000000"))
FULL_ROWS = 20_000_000
NUMBERS, CITIES = 28, ("Rome", "Paris", "Berlin", "Oslo", "Bonn")
DAY = "2026-03-04"
_BLOCK = 250_000


def main() -> None:
    """Print wall, CPU and peak memory of both, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        _write(file, ROWS)
        print(f"{ROWS:,} rows x {NUMBERS + 2}, {file.stat().st_size / 1e9:.2f} GB of CSV")
        ours = _measured("ours", file, Path(folder) / "home")
        theirs = _measured("pandas", file, Path(folder) / "out.parquet")
        names = ("wall", "CPU", "peak memory")
        ratios = [f"{name} {a / b:.2f}" for name, a, b in zip(names, ours, theirs, strict=True)]
        print("ours / pandas: " + ", ".join(ratios) + f" ({theirs[0] / ours[0]:.2f} times faster)")
    if "--full" in sys.argv or os.environ.get("BENCHMARK_FULL"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.csv"
            _write(file, FULL_ROWS)
            print(f"{FULL_ROWS:,} rows, {file.stat().st_size / 1e9:.2f} GB of CSV, limit 3 GB")
            _measured("ours", file, Path(folder) / "home")


def _write(file: Path, rows: int) -> None:
    """A CSV of numbers with few digits, some missing, a category and a binary target."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    with file.open("wb") as stream:
        for start in range(0, rows, _BLOCK):
            n = min(_BLOCK, rows - start)
            table: dict[str, Any] = {}
            for i in range(NUMBERS):
                drawn = rng.normal(size=n) * 100
                table[f"f{i}"] = drawn.round(3) if i % 4 else rng.integers(0, 1000, n)
            table["city"] = np.array(CITIES)[rng.integers(0, len(CITIES), n)]
            table["bought"] = np.array(["no", "yes"])[
                (table["f1"] + rng.normal(size=n) * 100 > 0).astype(int)
            ]
            frame = pl.DataFrame(table)
            gaps = pl.Series(rng.random(n) < 0.05)
            frame = frame.with_columns(pl.when(gaps).then(None).otherwise(pl.col("f2")).alias("f2"))
            frame.write_csv(stream, include_header=start == 0)


def _measured(side: str, file: Path, target: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak GB of one side in a process of its own."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.data", side, str(file), str(target)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = float(told.split()[-1])
    print(f"{side:7} wall {wall:6.1f} s  CPU {cpu:6.1f} s  peak {peak:5.2f} GB", flush=True)
    return wall, cpu, peak


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _ours(file: Path, home: Path) -> None:
    from ml_control.core.pipeline import Pipeline
    from ml_control.platform import open_platform
    from ml_control.services.arrivals.intake import ingest_files
    from ml_control.services.data.dataset import admit, process
    from ml_control.settings import load_settings
    from ml_control.spec import PipelineSpec

    features = [{"name": f"f{i}", "type": "number"} for i in range(NUMBERS)]
    spec = PipelineSpec.model_validate(
        {
            "name": "bench",
            "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
            "columns": {
                "target": "bought",
                "task": "binary",
                "positive": "yes",
                "features": [*features, {"name": "city", "type": "category"}],
            },
        }
    )
    platform, pipeline = open_platform(load_settings(home=home)), Pipeline(spec)
    ingest_files(platform, pipeline, [file], DAY)
    admit(platform, pipeline, DAY, "bench")
    done = process(platform, pipeline, DAY, "bench")
    assert done.published, done.audit


def _pandas(file: Path, target: Path) -> None:
    """Read, check, hash, split, number, summarise and write; polars only encodes the Parquet."""
    import hashlib

    import numpy as np
    import pandas as pd
    import polars as pl

    with file.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")
    frame = pd.read_csv(file, na_values=["", "NA", "?"], keep_default_na=False)
    numbers = [f"f{i}" for i in range(NUMBERS)]
    assert not np.isinf(frame[numbers].to_numpy()).any()
    assert frame["bought"].notna().all()
    hashes = pd.util.hash_pandas_object(frame[[*numbers, "city"]], index=False).to_numpy()
    share = (hashes >> np.uint64(11)) * 2.0**-53
    frame["split"] = np.select([share < 0.2, share < 0.3], ["test", "validation"], "train")
    frame["row_id"] = "0123456789abcdef-" + pd.Series(np.arange(1, len(frame) + 1)).astype(str)
    quantiles = np.linspace(0, 1, 33)
    for name in numbers:
        column = frame[name].dropna()
        column.agg(["count", "min", "max", "mean"])
        edges = np.unique(column.quantile(quantiles).to_numpy())
        np.histogram(column, bins=edges)
    for name in ("city", "bought", "split"):
        frame[name].value_counts()
    frame.duplicated([*numbers, "city", "bought"]).sum()
    columns = {n: frame[n].to_numpy() if n in numbers else frame[n].to_list() for n in frame}
    del frame
    pl.DataFrame(columns).write_parquet(target, compression="lz4")
    with target.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")


if __name__ == "__main__":
    {"ours": _ours, "pandas": _pandas}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    print(_peak())
