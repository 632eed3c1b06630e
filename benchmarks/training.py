"""Training from channel files: our program against CSV -> pandas -> DMatrix, a process each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ml_control.core.rows import csv_lines

ROWS, FEATURES, ROUNDS = 1_000_000, 30, 30

_OURS = """
import sys
from ml_control.serving.lean import leave_out_unused
leave_out_unused()
from ml_control.local.algorithm import main
status = main(["--prefix", sys.argv[1]])
"""
_PANDAS = (
    """
import sys, pandas, xgboost
from pathlib import Path
def matrix(name):
    files = sorted(Path(sys.argv[1], "input/data", name).glob("*.csv"))
    table = pandas.concat([pandas.read_csv(f, header=None) for f in files])
    return xgboost.DMatrix(table.iloc[:, 1:], label=table[0], nthread=2)
train, validation = matrix("train"), matrix("validation")
params = {"objective": "binary:logistic", "eval_metric": "logloss", "nthread": 2, "seed": 0}
xgboost.train(params, train, %d, evals=[(train, "train"), (validation, "validation")])
status = 0
"""
    % ROUNDS
)
_PEAK = """
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
sys.exit(status)
"""


def main() -> None:
    """Print wall, processor time and peak memory of each, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder)
        _write(prefix)
        print(f"{ROWS:,} x {FEATURES} rows of CSV, {ROUNDS} rounds: read, build and train")
        base = _measure("CSV -> pandas -> DMatrix", _PANDAS, prefix)
        ours = _measure("channel program", _OURS, prefix)
        _config(prefix, external=True)
        disk = _measure("channel program, external memory", _OURS, prefix)
    for name, found in (("channel program", ours), ("external memory", disk)):
        wall, cpu, peak = (mine / theirs for mine, theirs in zip(found, base, strict=True))
        print(f"{name}: ratio of wall {wall:.2f}, of user+sys {cpu:.2f}, of peak {peak:.2f}")


def _write(prefix: Path) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    for name, rows in (("train", ROWS), ("validation", ROWS // 10)):
        folder = prefix / "input" / "data" / name
        folder.mkdir(parents=True)
        with (folder / "0.csv").open("wb") as file:
            for _ in range(10):
                x = random.normal(size=(rows // 10, FEATURES)).astype(np.float32)
                y = (x[:, 0] + x[:, 1] * x[:, 2] + random.normal(size=len(x)) > 0).astype("f4")
                x[random.random(x.shape) < 0.05] = np.nan
                file.writelines(csv_lines(np.column_stack([y, x])))
    _config(prefix, external=False)


def _config(prefix: Path, *, external: bool) -> None:
    folder = prefix / "input" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"num_round": str(ROUNDS), "objective": "binary:logistic", "eval_metric": "logloss"}
    resources: dict[str, Any] = {"nthread": 2} | ({"external": True} if external else {})
    (folder / "hyperparameters.json").write_text(json.dumps(settings))
    (folder / "resourceconfig.json").write_text(json.dumps(resources))


def _measure(name: str, program: str, prefix: Path) -> tuple[float, float, float]:
    """(wall s, user+sys s, peak MB) of a program in a fresh process."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program + _PEAK, str(prefix)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user
    cpu -= before.children_system
    peak = int(done.stdout.split()[-1]) / 1024
    print(f"{name:33} {wall:6.1f} s wall {cpu:6.1f} s user+sys {peak:6.0f} MB", flush=True)
    return wall, cpu, peak
