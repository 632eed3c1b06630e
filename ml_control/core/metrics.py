"""Metrics of predictions against encoded labels: the gates' own, and XGBoost's, recomputed.

Predictions are XGBoost's outputs: binary ``(n,)`` P(positive), multiclass ``(n, k)`` class
probabilities, regression ``(n,)`` values. ``y_true`` is ``(n,)``: 0/1, class index, or value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: How far the probabilities of a row may be from adding up to one (float32 softmax).
_SUM_TOLERANCE = 1e-3
#: XGBoost's clamp for logarithms, in float32 (``eps`` in its elementwise and multiclass metrics).
_XGBOOST_EPS = 1e-16
_DATA = "check the test split and the model's output"


def checked(task: str, y_true: Any, predictions: Any) -> tuple[Floats, Floats]:
    """Both arrays as float64, once their shapes and values fit the task.

    Raises ``NotProven`` for empty, misshapen or non-finite arrays, labels that are no class
    index, and scores that are no probabilities; ``InvalidSpec`` for an unknown task.
    """
    import numpy as np

    if task not in METRICS:
        raise InvalidSpec("task", f"{task!r} is not one of {', '.join(sorted(METRICS))}")
    try:
        y = np.asarray(y_true, dtype=np.float64)
        p = np.asarray(predictions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise NotProven("predictions", f"not numeric arrays: {error}", _DATA) from error
    if y.ndim != 1 or y.size == 0:
        raise NotProven("labels", f"expected one label for each row, got shape {y.shape}", _DATA)
    wanted = 2 if task == "multiclass" else 1
    if p.ndim != wanted or len(p) != len(y):
        shape = f"({len(y)}, classes)" if wanted == 2 else f"({len(y)},)"
        raise NotProven("predictions", f"shape {p.shape} where {task} needs {shape}", _DATA)
    for name, values in (("labels", y), ("predictions", p)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise NotProven(name, f"{bad} of {values.size} values are not finite", _DATA)
    if task != "regression":
        _check_classes(y, p)
    return y, p


def _check_classes(y: Floats, p: Floats) -> None:
    import numpy as np

    classes = p.shape[1] if p.ndim == 2 else 2
    if classes < 2:
        raise NotProven("predictions", "one column cannot tell classes apart", _DATA)
    if np.any((y != np.floor(y)) | (y < 0) | (y >= classes)):
        raise NotProven("labels", f"a label is not a class index from 0 to {classes - 1}", _DATA)
    if p.min() < 0.0 or p.max() > 1.0:
        raise NotProven("predictions", "a probability is outside 0 to 1", _DATA)
    if p.ndim == 2 and np.abs(p.sum(axis=1) - 1.0).max() > _SUM_TOLERANCE:
        raise NotProven("predictions", "the probabilities of a row do not add up to 1", _DATA)


def predicted_classes(predictions: Floats) -> NDArray[np.int64]:
    """Class indices ``(n,)``: a binary score above 0.5 is 1, else the most probable class."""
    import numpy as np

    if predictions.ndim == 2:
        return np.asarray(predictions.argmax(axis=1), dtype=np.int64)
    return np.asarray(predictions > 0.5, dtype=np.int64)


def row_log_losses(y: Floats, p: Floats) -> Floats:
    """``-log`` of the probability given to each row's true class ``(n,)``.

    Class probabilities are first brought to a sum of one; probabilities are clamped to float64's
    epsilon, so that a certain and wrong prediction costs 36, not infinity.
    """
    import numpy as np

    if p.ndim == 2:
        given = p[np.arange(len(y)), y.astype(np.int64)] / p.sum(axis=1)
    else:
        given = np.where(y == 1, p, 1.0 - p)
    return np.asarray(-np.log(np.clip(given, np.finfo(np.float64).eps, 1.0)), dtype=np.float64)


def evaluate(task: str, y_true: Any, predictions: Any, metric: str) -> float:
    """One metric of :data:`ml_control.spec.METRICS`; see :func:`evaluate_all` for definitions.

    Raises ``NotProven`` when it is undefined on these rows (auc with one class, precision with
    nothing predicted positive, ...) or the arrays are unusable, never returning nan;
    ``InvalidSpec`` for a metric that the task does not have.
    """
    y, p = checked(task, y_true, predictions)
    if metric not in METRICS[task]:
        raise InvalidSpec(metric, f"{task} has the metrics {', '.join(sorted(METRICS[task]))}")
    return _computed(task, metric, y, p)


def evaluate_all(task: str, y_true: Any, predictions: Any) -> dict[str, float]:
    """Every metric of the task that is defined on these rows, by name.

    Class metrics use :func:`predicted_classes`; f1_macro averages over the classes that occur in
    labels or predictions. Raises ``NotProven`` for unusable arrays; a metric that is undefined
    on usable ones is left out, so that its absence can be seen.
    """
    y, p = checked(task, y_true, predictions)
    found: dict[str, float] = {}
    for metric in sorted(METRICS[task]):
        try:
            found[metric] = _computed(task, metric, y, p)
        except NotProven:
            continue
    return found


def _computed(task: str, metric: str, y: Floats, p: Floats) -> float:
    import numpy as np

    if reason := _undefined(task, metric, y, p):
        raise NotProven(metric, f"undefined on these {len(y)} rows: {reason}", _DATA)
    value = float(_METRICS[metric](y, p))
    if not np.isfinite(value):
        raise NotProven(metric, f"came out as {value} on these {len(y)} rows", _DATA)
    return value


def _undefined(task: str, metric: str, y: Floats, p: Floats) -> str:
    """Why the metric has no value here, or an empty text."""
    import numpy as np

    if metric == "auc" and len(np.unique(y)) < 2:
        return "there is only one class"
    if metric == "r2" and len(np.unique(y)) < 2:
        return "the target does not vary"
    if task == "binary" and metric in {"precision", "recall", "f1"}:
        found, true = int(predicted_classes(p).sum()), int(y.sum())
        if metric == "precision" and found == 0:
            return "nothing was predicted positive"
        if metric == "recall" and true == 0:
            return "there is no positive row"
        if metric == "f1" and found == 0 and true == 0:
            return "there is no positive row and none was predicted"
    return ""


def _class_score(name: str, **options: Any) -> Callable[[Floats, Floats], float]:
    """A sklearn score of predicted against true classes, looked up when it is used."""

    def score(y: Floats, p: Floats) -> float:
        from sklearn import metrics

        return float(getattr(metrics, name)(y.astype(int), predicted_classes(p), **options))

    return score


def _value_score(name: str) -> Callable[[Floats, Floats], float]:
    """A sklearn score of values or scores against truth, looked up when it is used."""

    def score(y: Floats, p: Floats) -> float:
        from sklearn import metrics

        return float(getattr(metrics, name)(y, p))

    return score


def _log_loss(y: Floats, p: Floats) -> float:
    return float(row_log_losses(y, p).mean())


_METRICS: dict[str, Callable[[Floats, Floats], float]] = {
    "accuracy": _class_score("accuracy_score"),
    "f1": _class_score("f1_score", zero_division=0.0),
    "precision": _class_score("precision_score"),
    "recall": _class_score("recall_score"),
    "f1_macro": _class_score("f1_score", average="macro", zero_division=0.0),
    "auc": _value_score("roc_auc_score"),
    "logloss": _log_loss,
    "rmse": _value_score("root_mean_squared_error"),
    "mae": _value_score("mean_absolute_error"),
    "r2": _value_score("r2_score"),
}


def watched(name: str, y_true: Any, predictions: Any, weights: Any = None) -> float:
    """An evaluation metric as XGBoost itself logs it, recomputed from its predictions.

    ``weights`` of the rows, float32 (n,), are those that the training saw, if it saw any.

    ``name`` may carry the data set (``validation-logloss``). Known: logloss, mlogloss, rmse, mae,
    error, merror, auc (of ``(n,)`` scores). As in XGBoost, labels, predictions and logarithms are
    float32, probabilities below 1e-16 are taken as 1e-16, ``error`` counts a score above 0.5 as
    positive, and rows are summed in float64. XGBoost 3.2 sums in blocks, so the result agrees
    with its log to about 1e-6 relative, and exactly for error and merror up to rounding.

    Raises ``InvalidSpec`` for another metric and ``NotProven`` for unusable arrays.
    """
    import numpy as np

    metric = name.rpartition("-")[2]
    if metric not in _WATCHED:
        raise InvalidSpec(name, f"cannot be recomputed; known are {', '.join(sorted(_WATCHED))}")
    task = {"mlogloss": "multiclass", "merror": "multiclass", "rmse": "regression"}.get(metric)
    task = task or ("regression" if metric == "mae" else "binary")
    y, p = checked(task, y_true, predictions)
    if metric == "auc" and len(np.unique(y)) < 2:
        raise NotProven(name, "undefined: there is only one class", _DATA)
    if weights is None:
        return float(_WATCHED[metric](y, p, None))
    w = np.asarray(weights, dtype=np.float32)
    if w.shape != y.shape or not np.isfinite(w).all() or w.min() < 0 or w.sum() <= 0:
        raise NotProven("weights", f"expected {len(y)} numbers of at least 0", _DATA)
    return float(_WATCHED[metric](y, p, w))


def _averaged(losses: Any, weights: Any) -> float:
    """The mean of float32 losses (n,), summed in float64; weighted where there are weights."""
    import numpy as np

    if weights is None:
        return float(losses.mean(dtype=np.float64))
    total = np.sum(losses * weights, dtype=np.float64)
    return float(total / np.sum(weights, dtype=np.float64))


def _xgboost_logloss(y: Floats, p: Floats, w: Any) -> float:
    import numpy as np

    score = p.astype(np.float32)
    given = np.where(y == 1, score, np.float32(1) - score)
    return _averaged(-np.log(np.maximum(given, np.float32(_XGBOOST_EPS))), w)


def _xgboost_mlogloss(y: Floats, p: Floats, w: Any) -> float:
    import numpy as np

    given = p.astype(np.float32)[np.arange(len(y)), y.astype(np.int64)]
    return _averaged(-np.log(np.maximum(given, np.float32(_XGBOOST_EPS))), w)


def _error_rate(y: Floats, p: Floats, w: Any) -> float:
    import numpy as np

    return _averaged((predicted_classes(p) != y).astype(np.float32), w)


def _xgboost_rmse(y: Floats, p: Floats, w: Any) -> float:
    import numpy as np

    return float(np.sqrt(_differences(y, p, w, power=2)))


def _xgboost_mae(y: Floats, p: Floats, w: Any) -> float:
    return _differences(y, p, w, power=1)


def _differences(y: Floats, p: Floats, w: Any, power: int) -> float:
    import numpy as np

    gap = np.abs(y.astype(np.float32) - p.astype(np.float32))
    return _averaged(gap**power, w)


def _weighted_auc(y: Floats, p: Floats, w: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, p, sample_weight=w))


_WATCHED: dict[str, Callable[[Floats, Floats, Any], float]] = {
    "logloss": _xgboost_logloss,
    "mlogloss": _xgboost_mlogloss,
    "error": _error_rate,
    "merror": _error_rate,
    "auc": _weighted_auc,
    "rmse": _xgboost_rmse,
    "mae": _xgboost_mae,
}
