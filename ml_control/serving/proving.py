"""Predict CSV rows in a container's own interpreter, as the container itself would.

Run as ``python -m ml_control.serving.proving`` in a fresh process. It reads one JSON request
from stdin, ``{"model": path, "inputs": {name: csv path}, "output": directory, "explain": name}``,
writes ``<output>/<name>.npy`` (float32, one row of predictions for each line) and prints one JSON
line. With ``explain``, what each column contributes to a sample of that input's predictions goes to
``contributions.npy`` and the sample's rows to ``contributions_rows.npy``.
A model that does not load or predict exits with 1 and ``{"error": ..., "stage": ...}``.
Needs only the standard library, numpy and XGBoost, of any version from 1.5.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.serving.cells import parse
from ml_control.serving.lean import leave_out_unused

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 4 << 20  # bytes of CSV parsed at once
_PARSERS = 2  # blocks parsed beside each other: numpy lets go of the interpreter meanwhile
_WINDOWS, _CALLS = 5, 100  # timed calls; the best window counts
_WINDOW_SECONDS = 1.0
_EXPLAINED_AT_MOST = 1000  # rows, and their rows times trees: SHAP values cost by both
_EXPLAINED_WORK = 200_000
_MAX_SAMPLE_COLUMNS = 100_000


def load(path: str | Path) -> Any:
    """The booster in a model file, on one thread. Raises what XGBoost raises."""
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(str(path))
    return booster


def trees_served(booster: Any) -> tuple[int, int]:
    """The rounds that the container's XGBoost answers with, as an ``iteration_range``.

    The 1.x containers cut a model with ``best_ntree_limit`` at its best round; later ones serve
    all rounds, which ``(0, 0)`` means.
    """
    import xgboost

    if int(xgboost.__version__.split(".")[0]) >= 2 or booster.attr("best_ntree_limit") is None:
        return 0, 0
    best = booster.attr("best_iteration")
    return (0, int(best) + 1) if best is not None else (0, 0)


def predict(booster: Any, features: np.ndarray) -> np.ndarray:
    """Predictions of float32 rows (n, columns): float32 of shape (n,) or (n, classes).

    Through a DMatrix, as the container does, so that the answers are equal bit for bit.
    """
    import numpy as np
    import xgboost

    answers = booster.predict(
        xgboost.DMatrix(features, missing=np.nan, nthread=1),
        iteration_range=trees_served(booster),
        validate_features=False,
    )
    return np.asarray(answers, dtype=np.float32)


def read_rows(path: str | Path) -> Iterator[np.ndarray]:
    """A CSV file of feature rows as blocks of float32 (n, columns); an empty cell is NaN.

    Raises ValueError, naming the line, for a cell that is no number and for rows of different
    lengths.
    """
    with Path(path).open("rb") as file, ThreadPoolExecutor(_PARSERS) as pool:
        lines = file.readlines(_BLOCK)
        if not lines:
            return
        first = parse(b"".join(lines))
        line, width = len(first), first.shape[1]
        yield first
        coming: deque[Future[np.ndarray]] = deque()
        while (lines := file.readlines(_BLOCK)) or coming:
            if lines:
                coming.append(pool.submit(parse, b"".join(lines), width, line))
                line += len(lines)
            if len(coming) > _PARSERS or not lines:
                yield coming.popleft().result()


def main() -> int:
    """Serve the one request on stdin; the exit status."""
    answer, stage = sys.stdout, "request"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # XGBoost prints its warnings to stdout
            request = json.load(sys.stdin)
            stage = "load"
            started = time.perf_counter()
            booster = load(request["model"])
            stage = "predict"
            explain = request.get("explain")
            report = _serve(booster, request["inputs"], Path(request["output"]), explain)
            report["seconds"] = time.perf_counter() - started
    except Exception as error:  # whatever the loader says, the caller gets its words
        words = f"{error}".split("Stack trace")[0].strip() or type(error).__name__
        answer.write(json.dumps({"error": words[:2000], "stage": stage}) + "\n")
        return 1
    answer.write(json.dumps(report) + "\n")
    return 0


def _serve(
    booster: Any, inputs: dict[str, str], output: Path, explain: str | None
) -> dict[str, Any]:
    import numpy as np
    import xgboost

    columns = int(booster.num_features())
    rows: dict[str, int] = {}
    sample = None
    for name, path in inputs.items():
        blocks = []
        for features in read_rows(path):
            if features.shape[1] != columns:
                # XGBoost would answer rows that are too short without a word.
                raise ValueError(
                    f"input {name} has {features.shape[1]} columns, the model has {columns}"
                )
            sample = features[:1] if sample is None else sample
            blocks.append(predict(booster, features))
        answers = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        np.save(output / f"{name}.npy", answers, allow_pickle=False)
        rows[name] = len(answers)
    if sample is None and columns <= _MAX_SAMPLE_COLUMNS:
        sample = np.full((1, columns), np.nan, np.float32)
    report = {
        "xgboost": xgboost.__version__,
        "num_features": columns,
        "rows": rows,
        **_latency(booster, sample),
    }
    if explain is not None and explain in inputs:
        try:
            report["explained"] = _explain(booster, inputs[explain], rows[explain], output)
        except Exception as error:  # a picture for the report, which proves nothing
            report["not_explained"] = f"{error}".split("Stack trace")[0].strip()[:500]
    return report


def _explain(booster: Any, path: str, total: int, output: Path) -> int:
    """Write the contributions of evenly spaced rows of an input; gives how many."""
    import numpy as np
    import xgboost

    trees = max(1, int(booster.num_boosted_rounds()))
    count = min(total, _EXPLAINED_AT_MOST, max(50, _EXPLAINED_WORK // trees))
    if count == 0:
        return 0
    wanted = np.unique(np.linspace(0, total - 1, count).astype(np.int64))
    chosen, at = [], 0
    for features in read_rows(path):
        inside = wanted[(wanted >= at) & (wanted < at + len(features))] - at
        chosen.append(features[inside])
        at += len(features)
    sample = np.concatenate(chosen)
    values = booster.predict(
        xgboost.DMatrix(sample, missing=np.nan, nthread=1),
        iteration_range=trees_served(booster),
        validate_features=False,
        pred_contribs=True,
    )
    np.save(output / "contributions.npy", np.asarray(values, np.float32), allow_pickle=False)
    np.save(output / "contributions_rows.npy", sample, allow_pickle=False)
    return len(sample)


def _latency(booster: Any, sample: np.ndarray | None) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds, of predicting one row at a time.

    The best of several windows, because other work on the machine only ever makes it slower;
    ``cpu`` is the processor's own time, which waiting for a busy processor does not add to.
    """
    import numpy as np

    if sample is None:
        return {"latency_p50_ms": 0.0, "latency_p99_ms": 0.0, "latency_cpu_p99_ms": 0.0}
    for _ in range(3):  # the first calls set up buffers
        predict(booster, sample)
    found: list[tuple[float, float, float]] = []
    for _ in range(_WINDOWS):
        wall: list[float] = []
        cpu: list[float] = []
        until = time.perf_counter() + _WINDOW_SECONDS
        while len(wall) < _CALLS and (len(wall) < 5 or time.perf_counter() < until):
            worked, began = time.thread_time(), time.perf_counter()
            predict(booster, sample)
            wall.append((time.perf_counter() - began) * 1000.0)
            cpu.append((time.thread_time() - worked) * 1000.0)
        p50, p99 = np.percentile(wall, [50, 99])
        found.append((float(p99), float(p50), float(np.percentile(cpu, 99))))
    p99, p50, _ = min(found)
    least = min(cpu for _, _, cpu in found)
    return {"latency_p50_ms": p50, "latency_p99_ms": p99, "latency_cpu_p99_ms": least}


if __name__ == "__main__":
    leave_out_unused()
    sys.exit(main())
