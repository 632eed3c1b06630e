"""The training program: the XGBoost container's algorithm mode on a folder like ``/opt/ml``.

Run as ``<python> -m ml_control.local.algorithm --prefix DIR`` by the interpreter that has the
container's XGBoost. It reads::

    input/config/hyperparameters.json       values are strings
    input/config/inputdataconfig.json       content types of the channels, where given
    input/config/resourceconfig.json        ``nthread``; ``external``: train from disk
    input/data/train/*.csv                  label first, no header, empty cell = missing;
                                            with csv_weights=1 the weight second
    input/data/validation/*.csv             optional
    input/data/golden/golden.csv            optional: feature rows without the label

prints the metrics of every round, and leaves ``output/data/golden.json`` and, last of all,
``model/xgboost-model``; or ``output/failure`` with the reason, and exit code 1. The model is cut
to the best round, so that a server that uses all its trees uses the right ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_control.local.hyperparameters import Refused, parse
from ml_control.local.matrices import (
    Unusable,
    read_channel,
    training_matrix,
    version,
    watched_matrix,
)
from ml_control.serving.lean import leave_out_unused
from ml_control.serving.proving import read_rows

SCRATCH = "scratch"  # the channels as numbers, and external memory's pages; gone when it ends


def run(prefix: Path) -> None:
    """One training job. Raises ``Refused``, ``Unusable`` or what XGBoost raises."""
    import xgboost

    config = prefix / "input" / "config"
    values = parse(_config(config / "hyperparameters.json"))
    _check_channels(_config(config / "inputdataconfig.json"))
    resources = _config(config / "resourceconfig.json")
    threads = resources.get("nthread") or _cpus()
    rounds = values.pop("num_round")
    patience = values.pop("early_stopping_rounds", None)
    weighted = bool(values.pop("csv_weights", 0))
    params = {"seed": 0, "nthread": int(threads), **values}
    watched = _matrices(prefix, params, weighted=weighted, external="external" in resources)
    train, data = watched[0][0], prefix / "input" / "data"
    golden = _golden(data / "golden" / "golden.csv", train.num_col(), params["nthread"])

    history: dict[str, dict[str, list[float]]] = {}
    callbacks = [_printer()]
    if patience:
        callbacks.append(
            xgboost.callback.EarlyStopping(patience, data_name=watched[-1][1], save_best=False)
        )
    booster = xgboost.train(
        params,
        train,
        num_boost_round=rounds,
        evals=watched,
        evals_result=history,
        verbose_eval=False,
        callbacks=callbacks,
    )
    metrics = history[watched[-1][1]]
    metric = list(metrics)[-1]
    last = len(metrics[metric]) - 1
    best = int(booster.best_iteration) if patience else last
    if best < last:
        booster = booster[: best + 1]
    report = {
        "predictions": _predictions(booster, golden),
        "best_iteration": best,
        "watched": f"{watched[-1][1]}-{metric}",
        "watched_value": float(metrics[metric][best]),
        "rounds": last + 1,
        "xgboost": xgboost.__version__,
    }
    _write(prefix / "output" / "data" / "golden.json", json.dumps(report).encode(), prefix)
    _write(prefix / "model" / "xgboost-model", _saved(booster, prefix), prefix)


def _matrices(
    prefix: Path, params: Mapping[str, Any], *, weighted: bool, external: bool
) -> list[tuple[Any, str]]:
    """The training channel and, where there is one, the validation channel after it."""
    data, scratch = prefix / "input" / "data", prefix / SCRATCH
    scratch.mkdir(exist_ok=True)
    rows = read_channel(data / "train", scratch / "train", weighted=weighted)
    watched = [(training_matrix(rows, params, external=external), "train")]
    if (data / "validation").is_dir():
        seen = read_channel(data / "validation", scratch / "validation", weighted=weighted)
        if seen.features != rows.features:
            raise Unusable(
                f"channel validation has {seen.features} features, "
                f"channel train has {rows.features}"
            )
        watched.append((watched_matrix(seen, params, external=external), "validation"))
    return watched


def _golden(path: Path, columns: int, threads: int) -> Any:
    """The golden rows as a matrix, or None where the job has none."""
    import numpy as np
    import xgboost

    if not path.exists():
        return None
    try:
        rows = np.concatenate(list(read_rows(path)) or [np.empty((0, columns), np.float32)])
    except ValueError as error:
        raise Unusable(f"channel golden: {path.name}: {error}") from None
    if rows.shape[1] != columns:
        raise Unusable(
            f"channel golden has {rows.shape[1]} columns, channel train has {columns} features"
        )
    return xgboost.DMatrix(rows, missing=float("nan"), nthread=threads)


def _predictions(booster: Any, golden: Any) -> list[list[float]]:
    if golden is None or not golden.num_row():
        return []
    answers = booster.predict(golden)
    rows: list[list[float]] = answers.reshape(len(answers), -1).tolist()
    return rows


def _printer() -> Any:
    """Prints the line that SageMaker's metric definitions look for, at once for whoever tails."""
    import xgboost

    class Printer(xgboost.callback.TrainingCallback):
        def after_iteration(self, _model: Any, epoch: int, evals_log: Any) -> bool:
            pairs = [
                f"{data}-{metric}:{values[-1]:.5f}"
                for data, metrics in evals_log.items()
                for metric, values in metrics.items()
            ]
            print(f"[{epoch}]\t" + "\t".join(pairs), flush=True)
            return False

    return Printer()


def _saved(booster: Any, prefix: Path) -> bytes:
    """The model as bytes that this very version of XGBoost loads again."""
    if version() >= (1, 6):
        return bytes(booster.save_raw("ubj"))
    draft = prefix / "output" / ".model.json"  # the format follows the file's name
    booster.save_model(str(draft))
    model = draft.read_bytes()
    draft.unlink()
    return model


def _config(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Unusable(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unusable(f"{path.name} is not a JSON object")
    return value


def _check_channels(channels: Mapping[str, Any]) -> None:
    for name, channel in channels.items():
        kind = str(channel.get("ContentType", "text/csv")).split(";")[0].strip().lower()
        if kind not in {"text/csv", "csv"}:
            raise Unusable(f"channel {name} has content type {kind}; training locally reads CSV")


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write(path: Path, data: bytes, prefix: Path) -> None:
    """A whole file at once. The draft lies elsewhere: every file beside a model is a model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = prefix / "output" / f".{path.name}.draft"
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 when the model is there, 1 with the reason in ``output/failure``."""
    parser = argparse.ArgumentParser(prog="ml_control.local.algorithm", description=__doc__)
    parser.add_argument("--prefix", type=Path, required=True, help="folder laid out like /opt/ml")
    prefix = parser.parse_args(arguments).prefix
    (prefix / "output").mkdir(parents=True, exist_ok=True)
    try:
        run(prefix)
    except (Refused, Unusable) as error:
        failure = str(error)
    except Exception as error:  # whatever it is, the job's owner must be able to read it
        traceback.print_exc()
        words = str(error).split("Stack trace")[0].strip()
        failure = f"framework error: {type(error).__name__}: {words}"
    else:
        return 0
    finally:
        shutil.rmtree(prefix / SCRATCH, ignore_errors=True)
    print(failure, file=sys.stderr, flush=True)
    _write(prefix / "output" / "failure", failure.encode(), prefix)
    return 1


if __name__ == "__main__":
    leave_out_unused()
    sys.exit(main())
