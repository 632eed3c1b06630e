"""Algorithm mode on a folder laid out like ``/opt/ml``: ``python -m ... --prefix DIR``.

Unlike :mod:`ml_control.local.algorithm`, which trains what will be served, this leaves the raw job
output: ``model/xgboost-model`` in the format that this XGBoost writes for a name without an
ending (legacy binary in 1.x, UBJ in 3.x), with all rounds, also those after the best one. A failure
is written to ``output/failure`` as the container words it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_control.local.hyperparameters import Refused, parse
from ml_control.local.matrices import Unusable, read_channel, training_matrix, watched_matrix
from ml_control.serving.lean import leave_out_unused
from ml_control.testing.xgboost_container.parent import end_with_parent

_USER_ERROR = "sagemaker_algorithm_toolkit.exceptions.UserError"
_CSV = ("text/csv", "csv")


def train(prefix: Path) -> None:
    """Train and save. Raises ``Refused``, ``Unusable`` or what XGBoost raises."""
    import xgboost

    config = prefix / "input" / "config"
    raw = _config(config / "hyperparameters.json")
    gpu = raw.pop("use_dask_gpu_training", "false") == "true"
    raw.pop("save_model_on_termination", None)
    objective = raw.pop("_tuning_objective_metric", "")
    values = parse(raw)
    if gpu and values.get("tree_method") != "hist":
        raise Refused("Hyperparameter tree_method: use_dask_gpu_training needs tree_method=hist")
    if objective:
        _measure(values, objective)
    for name, channel in _config(config / "inputdataconfig.json").items():
        kind = str(channel.get("ContentType", "text/libsvm")).split(";")[0].strip().lower()
        if kind not in _CSV:
            raise Unusable(f"channel {name}: {kind} is not read by this double; give text/csv")
    rounds, patience = values.pop("num_round"), values.pop("early_stopping_rounds", None)
    weighted = bool(values.pop("csv_weights", 0))
    params = {"nthread": 2, **values}
    watched = _matrices(prefix, params, weighted=weighted)
    callbacks = [_printer()]
    if patience:
        # save_best stays off, as observed: the saved model keeps every round.
        callbacks.append(
            xgboost.callback.EarlyStopping(patience, data_name=watched[-1][1], save_best=False)
        )
    booster = xgboost.train(
        params,
        watched[0][0],
        num_boost_round=rounds,
        evals=watched,
        verbose_eval=False,
        callbacks=callbacks,
    )
    model = prefix / "model" / "xgboost-model"
    model.parent.mkdir(parents=True, exist_ok=True)
    booster.save_model(str(model))


def _measure(values: dict[str, Any], objective: str) -> None:
    """A tuning job's objective, ``validation:auc``, is measured besides what was asked for."""
    metric = objective.partition(":")[2]
    asked = values.setdefault("eval_metric", [])
    if metric in asked:
        asked.remove(metric)
    asked.append(metric)


def _matrices(prefix: Path, params: Mapping[str, Any], *, weighted: bool) -> list[tuple[Any, str]]:
    data, scratch = prefix / "input" / "data", prefix / "scratch"
    scratch.mkdir(exist_ok=True)
    rows = read_channel(data / "train", scratch / "train", weighted=weighted)
    watched = [(training_matrix(rows, params, external=False), "train")]
    if (data / "validation").is_dir():
        seen = read_channel(data / "validation", scratch / "validation", weighted=weighted)
        watched.append((watched_matrix(seen, params, external=False), "validation"))
    return watched


def _printer() -> Any:
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


def _config(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0, or 1 with the reason in ``output/failure``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefix", type=Path, required=True, help="folder laid out like /opt/ml")
    prefix = parser.parse_args(arguments).prefix
    (prefix / "output").mkdir(parents=True, exist_ok=True)
    try:
        train(prefix)
    except (Refused, Unusable) as error:
        said = f"framework error: \n{_USER_ERROR}: {error}\n\n{error}"
    except Exception as error:  # whatever it is, it must be readable in the job's FailureReason
        words = str(error).split("Stack trace")[0].strip()
        said = f"framework error: \n{traceback.format_exc(limit=-1)}\n{words}"
    else:
        return 0
    finally:
        shutil.rmtree(prefix / "scratch", ignore_errors=True)
    print(said, file=sys.stderr, flush=True)
    (prefix / "output" / "failure").write_text(said, "utf-8")
    return 1


if __name__ == "__main__":
    end_with_parent()
    leave_out_unused()
    sys.exit(main())
