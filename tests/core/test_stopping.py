"""The round that a training keeps, told from what it printed, is the one that XGBoost keeps."""

from __future__ import annotations

import math

import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.stopping import chosen, maximized

METRICS = ("logloss", "mlogloss", "rmse", "mape", "error@0.4", "auc", "aucpr", "map@3", "ndcg")
VALUES = st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75, math.nan]), min_size=1, max_size=30)


class Model:
    """What the callback needs of a booster."""

    def __init__(self):
        self.attributes = {}

    def set_attr(self, **attributes):
        self.attributes |= attributes

    def num_boosted_rounds(self):
        return 0


def by_xgboost(values, metric, patience):
    """(rounds that ran, best round) by XGBoost's own callback."""
    callback = xgboost.callback.EarlyStopping(rounds=patience, data_name="validation")
    model = Model()
    callback.before_training(model)
    for epoch in range(len(values)):
        log = {"train": {metric: values[: epoch + 1]}, "validation": {metric: values[: epoch + 1]}}
        if callback.after_iteration(model, epoch, log):
            break
    return epoch + 1, int(model.attributes["best_iteration"])


@given(values=VALUES, metric=st.sampled_from(METRICS), patience=st.integers(1, 5))
def test_the_choice_is_that_of_xgboosts_callback(values, metric, patience):
    """Of whatever was printed until it stopped: the same round, and the end is known to be one."""
    ran, best = by_xgboost(values, metric, patience)

    choice = chosen(values[:ran], metric, len(values), patience)

    assert best == choice.best
    assert choice.ended
    assert best in choice.alike


@given(values=VALUES, metric=st.sampled_from(METRICS), patience=st.integers(1, 5))
def test_a_log_that_is_not_whole_is_noticed(values, metric, patience):
    """Before the last round was printed, nothing is chosen for good."""
    ran, _ = by_xgboost(values, metric, patience)

    for seen in range(1, ran):
        assert not chosen(values[:seen], metric, len(values), patience).ended


@given(values=VALUES)
def test_without_patience_the_last_round_is_kept(values):
    """And it is the end when as many rounds were printed as were asked for."""
    choice = chosen(values, "logloss", len(values), None)

    assert (len(values) - 1, True) == (choice.best, choice.ended)
    assert not chosen(values, "logloss", len(values) + 1, None).ended


@pytest.mark.parametrize(("metric", "more"), [("auc", True), ("mape", False), ("logloss", False)])
def test_more_is_better_for_some_metrics(metric, more):
    """By the metric's name, as XGBoost judges it."""
    assert more == maximized(metric)


def test_rounds_that_printing_does_not_tell_apart_are_named():
    """Five digits are equal for them: the booster's own word may be any of them."""
    choice = chosen([0.5, 0.3, 0.4, 0.3, 0.6], "rmse", 5, 2)

    assert (1, (1, 3)) == (choice.best, choice.alike)
    assert chosen([0.5, 0.3, 0.4], "rmse", 9, 2, unprinted=1).ended
