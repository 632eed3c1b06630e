"""The training program: the XGBoost container's algorithm mode on a folder like ``/opt/ml``.

Run as ``<python> -m ml_control.local.algorithm --prefix DIR`` by the interpreter that has the
container's XGBoost. It reads::

    input/config/hyperparameters.json       values are strings
    input/config/inputdataconfig.json       content types of the channels, where given
    input/config/resourceconfig.json        ``nthread``, where given
    input/data/train/*.csv                  label first, no header, empty cell = missing
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
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.local.hyperparameters import Refused, parse
from ml_control.serving.lean import leave_out_unused
from ml_control.serving.proving import read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COUNT_BLOCK = 1 << 20


class Unusable(ValueError):
    """Training data or configuration that cannot be used; the text says what and where."""


def run(prefix: Path) -> None:
    """One training job. Raises ``Refused``, ``Unusable`` or what XGBoost raises."""
    import xgboost

    config = prefix / "input" / "config"
    values = parse(_config(config / "hyperparameters.json"))
    _check_channels(_config(config / "inputdataconfig.json"))
    threads = _config(config / "resourceconfig.json").get("nthread") or _cpus()
    rounds = values.pop("num_round")
    patience = values.pop("early_stopping_rounds", None)
    params = {"seed": 0, "nthread": int(threads), **values}

    data = prefix / "input" / "data"
    train = _matrix(data / "train", params, None)
    watched = [(train, "train")]
    if (data / "validation").is_dir():
        watched.append((_matrix(data / "validation", params, train.num_col()), "validation"))
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


def read_channel(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(features (rows, columns), labels (rows,)) of the CSV files in a folder, by name.

    The arrays are filled in place, so the peak is the data once and one block of text. Raises
    ``Unusable`` naming the file for a header, an unusable cell, or rows of different lengths.
    """
    import numpy as np

    files = sorted(path for path in folder.glob("*.csv") if path.is_file())
    total = sum(_lines(path) for path in files)
    if not total:
        raise Unusable(f"channel {folder.name}: there is no row of data in its *.csv files")
    features = labels = np.empty(0, np.float32)
    filled = width = 0
    for path in files:
        try:
            for block in read_rows(path):
                if not width:
                    width = block.shape[1]
                    if width < 2:
                        raise Unusable("a row needs a label and at least one feature")
                    features = np.empty((total, width - 1), np.float32)
                    labels = np.empty(total, np.float32)
                if block.shape[1] != width:
                    raise Unusable(f"has {block.shape[1]} columns, the rows before have {width}")
                labels[filled : filled + len(block)] = block[:, 0]
                features[filled : filled + len(block)] = block[:, 1:]
                filled += len(block)
        except ValueError as error:
            raise Unusable(f"channel {folder.name}: {path.name}: {_explain(path, error)}") from None
    features, labels = features[:filled], labels[:filled]
    if not np.isfinite(labels).all():
        row = int(np.argmin(np.isfinite(labels)))
        raise Unusable(f"channel {folder.name}: row {row + 1} has no finite label in column 1")
    if np.isinf(features).any():
        row = int(np.isinf(features).any(axis=1).argmax())
        raise Unusable(f"channel {folder.name}: row {row + 1} has an infinite value")
    return features, labels


def _explain(path: Path, error: ValueError) -> str:
    """The reader's words; where the first line is a header, that is what must be said."""
    with path.open("rb") as file:
        cells = file.readline(1 << 16).decode(errors="replace").rstrip("\r\n").split(",")
    for cell in cells:
        try:
            float(cell or "nan")
        except ValueError:
            return f"begins with a header ({cell.strip()[:40]!r}); training data must have none"
    return str(error)


def _lines(path: Path) -> int:
    """An upper bound of the rows in a file: its line ends, and an unended last line."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_COUNT_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _matrix(folder: Path, params: Mapping[str, Any], columns: int | None) -> Any:
    """A channel as XGBoost's matrix; ``columns`` are those of the training channel, if known."""
    import xgboost

    if not folder.is_dir():
        raise Unusable(f"channel {folder.name} is required for training")
    features, labels = read_channel(folder)
    if columns is not None and features.shape[1] != columns:
        raise Unusable(
            f"channel {folder.name} has {features.shape[1]} features, channel train has {columns}"
        )
    common = {"label": labels, "missing": float("nan"), "nthread": params["nthread"]}
    histogram = params.get("tree_method", "auto") in {"auto", "hist"}
    if columns is None and histogram and params.get("booster") != "gblinear" and _version() >= (2,):
        # The same trees, bit for bit, from less memory: hist looks at bins only.
        return xgboost.QuantileDMatrix(features, max_bin=params.get("max_bin", 256), **common)
    return xgboost.DMatrix(features, **common)


def _golden(path: Path, columns: int, threads: int) -> Any:
    """The golden rows as a matrix, or None where the job has none."""
    import numpy as np
    import xgboost

    if not path.exists():
        return None
    try:
        rows = np.concatenate(list(read_rows(path)) or [np.empty((0, columns), np.float32)])
    except ValueError as error:
        raise Unusable(f"channel golden: {path.name}: {_explain(path, error)}") from None
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
    if _version() >= (1, 6):
        return bytes(booster.save_raw("ubj"))
    draft = prefix / "output" / ".model.json"  # the format follows the file's name
    booster.save_model(str(draft))
    model = draft.read_bytes()
    draft.unlink()
    return model


def _version() -> tuple[int, ...]:
    import xgboost

    return tuple(int(part) for part in xgboost.__version__.split(".")[:2])


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
    print(failure, file=sys.stderr, flush=True)
    _write(prefix / "output" / "failure", failure.encode(), prefix)
    return 1


if __name__ == "__main__":
    leave_out_unused()
    sys.exit(main())
