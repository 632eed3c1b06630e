"""Metrics: defined values are right, undefined ones are refused, XGBoost's log is reproduced."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.metrics import evaluate, evaluate_all, watched
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import METRICS

Y = np.array([0, 0, 1, 1, 1])
P = np.array([0.1, 0.6, 0.6, 0.9, 0.2], dtype=np.float32)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # Of the six pairs, (0.1, any) three in order, (0.6, 0.6) a tie, (0.6, 0.9) in order.
        ("auc", 4.5 / 6),
        ("accuracy", 3 / 5),
        ("precision", 2 / 3),
        ("recall", 2 / 3),
        ("f1", 2 / 3),
        ("logloss", -(math.log(0.9 * 0.4 * 0.6 * 0.9 * 0.2)) / 5),
    ],
)
def test_binary_metrics_by_hand(metric, expected):
    """Each binary metric equals its definition worked out by hand."""
    assert expected == pytest.approx(evaluate("binary", Y, P, metric), rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "expected"), [("mae", 1.0), ("rmse", math.sqrt(5 / 3)), ("r2", 1 - 5 / 2)]
)
def test_regression_metrics_by_hand(metric, expected):
    """Each regression metric equals its definition worked out by hand."""
    actual = evaluate("regression", np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 4.0]), metric)

    assert expected == pytest.approx(actual)


def test_multiclass_metrics_by_hand():
    """Multiclass metrics take the most probable class and the probability of the true one."""
    y = np.array([0, 1, 2, 2])
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])

    actual = evaluate_all("multiclass", y, p)

    expected = {
        "accuracy": 0.75,
        "f1_macro": (2 / 3 + 1 + 2 / 3) / 3,
        "logloss": -math.log(0.8 * 0.5 * 0.8 * 0.2) / 4,
    }
    assert expected == pytest.approx(actual)


@pytest.mark.parametrize(
    ("task", "y", "p", "metric"),
    [
        ("binary", [1, 1], [0.2, 0.9], "auc"),
        ("binary", [0, 1], [0.2, 0.3], "precision"),
        ("binary", [0, 0], [0.2, 0.9], "recall"),
        ("binary", [0, 0], [0.2, 0.3], "f1"),
        ("regression", [2.0, 2.0], [2.0, 3.0], "r2"),
    ],
)
def test_undefined_is_refused(task, y, p, metric):
    """A metric without a value on these rows is refused, and left out of the overview."""
    with pytest.raises(NotProven, match=metric):
        evaluate(task, np.array(y), np.array(p), metric)

    assert metric not in evaluate_all(task, np.array(y), np.array(p))


@pytest.mark.parametrize(
    ("task", "y", "p", "about"),
    [
        ("binary", [], [], "labels"),
        ("binary", [0, 1], [0.1, math.nan], "predictions"),
        ("binary", [0, math.inf], [0.1, 0.2], "labels"),
        ("binary", [0, 1], [0.1, 1.2], "predictions"),
        ("binary", [0, 2], [0.1, 0.2], "labels"),
        ("binary", [0, 1], [0.1, 0.2, 0.3], "predictions"),
        ("binary", [0, 1], [[0.9, 0.1], [0.2, 0.8]], "predictions"),
        ("multiclass", [0, 1], [0.1, 0.2], "predictions"),
        ("multiclass", [0, 1], [[0.9, 0.9], [0.2, 0.8]], "predictions"),
        ("multiclass", [0, 0.5], [[0.9, 0.1], [0.2, 0.8]], "labels"),
        ("regression", [0, 1], ["x", "y"], "predictions"),
    ],
)
def test_unusable_arrays_are_refused(task, y, p, about):
    """Arrays of the wrong shape or content are refused by name, never scored."""
    for call in (evaluate_all, lambda *a: evaluate(*a, "accuracy")):
        with pytest.raises(NotProven) as caught:
            call(task, y, p)

        assert about in (caught.value.object, "labels" if not y else "")


def test_unknown_names_are_refused():
    """A metric or task that does not exist is a mistake in the settings, not in the data."""
    with pytest.raises(InvalidSpec, match="rmse"):
        evaluate("binary", Y, P, "rmse")
    with pytest.raises(InvalidSpec, match="ranking"):
        evaluate_all("ranking", Y, P)
    with pytest.raises(InvalidSpec, match="aucpr"):
        watched("validation-aucpr", Y, P)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.sampled_from(["binary", "multiclass", "regression"]),
)
def test_every_reported_metric_is_finite(seed, n, task):
    """Whatever the rows, a metric is either finite or absent."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n) if task == "regression" else rng.integers(0, 2, n)
    p = rng.random(n) if task != "multiclass" else rng.dirichlet([0.05, 0.05, 0.05], n)

    found = evaluate_all(task, y, p)

    assert set(found) <= METRICS[task]
    assert all(map(math.isfinite, found.values()))


@pytest.mark.parametrize(
    ("objective", "metrics"),
    [
        ("binary:logistic", ["logloss", "error", "auc"]),
        ("multi:softprob", ["mlogloss", "merror"]),
        ("reg:squarederror", ["rmse", "mae"]),
    ],
)
@pytest.mark.parametrize("rounds", [1, 200])
def test_watched_is_what_xgboost_logs(objective, metrics, rounds):
    """The recomputed metric equals XGBoost's own to 1e-6, also with certain predictions."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, size=(400, 3)).astype(np.float32)
    noise = rng.integers(0, 9, 400)
    y = {
        "binary:logistic": (x[:, 0] > 1) ^ (noise == 0),
        "multi:softprob": np.where(noise == 0, 2, x[:, 0] > 1),
        "reg:squarederror": x[:, 0] * 1000.0 + noise,
    }[objective].astype(np.float32)
    data = xgboost.DMatrix(x, y)
    classes = {"num_class": 3} if objective.startswith("multi") else {}
    settings = {"objective": objective, "eval_metric": metrics, "eta": 1.0, "nthread": 1}
    booster = xgboost.train({**settings, **classes}, data, rounds)
    logged = dict(item.split(":") for item in booster.eval(data).split("\t")[1:])
    predictions = booster.predict(data)

    for metric in metrics:
        expected = float(logged[f"eval-{metric}"])
        assert expected == pytest.approx(watched(f"validation-{metric}", y, predictions), rel=1e-6)


def test_watched_clamps_like_xgboost():
    """A certain and wrong prediction costs -log(1e-16), as in XGBoost, and stays finite."""
    expected = -math.log(1e-16)

    assert expected == pytest.approx(watched("logloss", [1], [0.0]), rel=1e-6)
    assert expected == pytest.approx(watched("mlogloss", [1], [[1.0, 0.0]]), rel=1e-6)
