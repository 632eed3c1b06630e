"""The paired bootstrap: equal to brute force, honest coverage, deterministic, fast."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.bootstrap import paired_difference
from ml_control.core.metrics import evaluate
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import LOWER_IS_BETTER, METRICS

PAIRS = [(task, metric) for task in sorted(METRICS) for metric in sorted(METRICS[task])]


def sample(task, n, seed=0):
    """Labels and two models' predictions, rounded so that scores tie."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(1000.0, 3.0, n)
        return y, y + rng.normal(0, 1.0, n), y + rng.normal(0, 1.2, n)
    if task == "binary":
        y = rng.integers(0, 2, n)
        scores = [np.round(1 / (1 + np.exp(-(2 * y - 1 + rng.normal(0, s, n)))), 1) for s in (1, 2)]
        return y, scores[0], scores[1]
    y = rng.integers(0, 3, n)
    both = [np.exp(np.eye(3)[y] + rng.normal(0, s, (n, 3))) for s in (0.5, 0.9)]
    return y, *[p / p.sum(axis=1, keepdims=True) for p in both]


def brute_force(task, metric, y, new, old, confidence, resamples, seed):
    """The definition: draw rows, compute both metrics, sort the differences."""
    rng = np.random.default_rng(seed)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    found = []
    for rows in rng.integers(0, len(y), size=(resamples, len(y))):
        try:
            a = evaluate(task, y[rows], new[rows], metric)
            b = evaluate(task, y[rows], old[rows], metric)
        except NotProven:
            continue
        found.append(sign * (a - b))
    found.sort()
    at = [int(np.ceil(len(found) * q - 1e-9)) - 1 for q in (1 - confidence, confidence)]
    return found[at[0]], found[at[1]], len(found)


@pytest.mark.parametrize(("task", "metric"), PAIRS)
def test_equals_brute_force(task, metric):
    """Every metric's vectorised form gives the bounds of the literal definition."""
    y, new, old = sample(task, 30)

    actual = paired_difference(task, metric, y, new, old, confidence=0.9, resamples=200, seed=5)

    lower, upper, used = brute_force(task, metric, y, new, old, 0.9, 200, 5)
    assert (lower, upper) == pytest.approx((actual.lower, actual.upper), abs=1e-9)
    assert (used, 30) == (actual.resamples, actual.n)


@pytest.mark.parametrize(("task", "metric"), PAIRS)
def test_positive_means_better(task, metric):
    """The better model has a positive difference, also where a lower metric is better."""
    y, new, old = sample(task, 400, seed=1)

    there = paired_difference(task, metric, y, new, old, confidence=0.9, resamples=200)
    back = paired_difference(task, metric, y, old, new, confidence=0.9, resamples=200)

    assert there.mean > 0
    assert there.mean == pytest.approx(-back.mean)
    assert there.lower <= there.mean <= there.upper


@pytest.mark.parametrize(("task", "metric"), PAIRS)
def test_identical_models_differ_by_exactly_nothing(task, metric):
    """A model compared with itself has bounds of exactly zero."""
    y, new, _ = sample(task, 50)

    actual = paired_difference(task, metric, y, new, new.copy(), confidence=0.95)

    assert (actual.mean, actual.lower, actual.upper) == (0.0, 0.0, 0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(PAIRS), st.sampled_from([0.6, 0.8, 0.9]))
def test_more_confidence_never_raises_the_lower_bound(seed, pair, confidence):
    """Asking for more confidence widens the bounds; the same arguments repeat the result."""
    y, new, old = sample(pair[0], 40, seed)

    def bounds(level):
        return paired_difference(*pair, y, new, old, confidence=level, resamples=200, seed=seed)

    try:
        less, more = bounds(confidence), bounds(0.95)
    except NotProven:
        return
    assert more.lower <= less.lower
    assert less.upper <= more.upper
    assert less == bounds(confidence)


@pytest.mark.parametrize(("task", "metric"), [("binary", "accuracy"), ("regression", "rmse")])
def test_coverage_by_simulation(task, metric):
    """The 90% lower bound lies below the true difference in about 90% of simulated tests."""
    covered, trials, n = 0, 300, 200
    rng = np.random.default_rng(7)
    for trial in range(trials):
        if task == "binary":
            y = rng.integers(0, 2, n)
            right = [rng.random(n) < share for share in (0.80, 0.75)]
            new, old = (np.where(hit, y, 1 - y) for hit in right)
            truth = 0.05
        else:
            y = rng.normal(size=n)
            new, old = y + rng.normal(0, 1.0, n), y + rng.normal(0, 1.1, n)
            truth = 0.1
        found = paired_difference(
            task, metric, y, new, old, confidence=0.9, resamples=400, seed=trial
        )
        covered += found.lower <= truth

    # Three standard errors of a share of 300 around 0.9 are 0.052.
    assert pytest.approx(covered / trials, abs=0.052) == 0.9


def test_rare_class_leaves_out_undefined_resamples():
    """Resamples without a positive row are counted out, and too many of them are refused."""
    y, new, old = np.zeros(50), np.linspace(0, 1, 50), np.linspace(0, 0.9, 50) ** 2
    y[-4:] = 1

    found = paired_difference("binary", "auc", y, new, old, confidence=0.9)

    assert 1900 <= found.resamples < 2000
    y[-4:-1] = 0
    with pytest.raises(NotProven, match="undefined on"):
        paired_difference("binary", "auc", y, new, old, confidence=0.9)


def test_refusals():
    """Unusable settings, arrays and undefined metrics are refused, never given a bound."""
    y, p = np.array([0, 1, 1]), np.array([0.1, 0.8, 0.7])
    wide = np.full((3, 3), 1 / 3)
    with pytest.raises(InvalidSpec, match="confidence"):
        paired_difference("binary", "auc", y, p, p, confidence=0.2)
    with pytest.raises(InvalidSpec, match="resamples"):
        paired_difference("binary", "auc", y, p, p, confidence=0.9, resamples=10)
    with pytest.raises(NotProven, match="predictions"):
        paired_difference("binary", "auc", y, p, p * np.nan, confidence=0.9)
    with pytest.raises(NotProven, match="auc"):
        paired_difference("binary", "auc", y * 0, p, p / 2, confidence=0.9)
    with pytest.raises(NotProven, match="resampled"):
        paired_difference("binary", "accuracy", y[:1], p[:1], p[:1], confidence=0.9)
    with pytest.raises(NotProven, match="champion"):
        paired_difference("multiclass", "accuracy", y, wide, np.full((3, 2), 0.5), confidence=0.9)


def test_ten_thousand_rows_take_seconds():
    """2,000 resamples of 10,000 rows of the costliest metric end within seconds."""
    y, new, old = sample("binary", 10_000)
    began = time.process_time()

    paired_difference("binary", "auc", y, new * 0.999, old, confidence=0.95)

    # Processor time, which other work on the machine does not stretch; measured: 3 s.
    assert time.process_time() - began < 20


@pytest.mark.parametrize(("task", "metric"), PAIRS)
def test_groups_of_rows_give_the_bounds_that_rows_give(task, metric):
    """Drawing random groups, as for large test sets, moves the bounds by their own noise only."""
    y, new, old = sample(task, 6_000, seed=3)
    both = [
        paired_difference(
            task, metric, y, new, old, confidence=0.9, resamples=1000, drawn=drawn, groups=2_000
        )
        for drawn in (50_000, 1_000)
    ]

    rows, grouped = both
    width = rows.upper - rows.lower
    assert rows.mean == grouped.mean
    # A bound of 1,000 resamples has a standard error of about 2% of the width between both.
    assert pytest.approx(rows.lower, abs=0.1 * width) == grouped.lower
    assert pytest.approx(rows.upper, abs=0.1 * width) == grouped.upper


def test_groups_know_a_rare_class():
    """Forty positives among many rows: the bounds are those of drawing rows, ties included."""
    rng = np.random.default_rng(9)
    y = np.zeros(20_000)
    y[rng.permutation(20_000)[:40]] = 1
    new, old = (np.round(np.clip(rng.normal(0.3 + 0.2 * y, s), 0, 1), 2) for s in (0.1, 0.15))
    rows, grouped = (
        paired_difference(
            "binary", "auc", y, new, old, confidence=0.9, resamples=500, drawn=drawn, groups=5_000
        )
        for drawn in (50_000, 10_000)
    )

    width = rows.upper - rows.lower
    assert pytest.approx(rows.lower, abs=0.15 * width) == grouped.lower
    assert pytest.approx(rows.upper, abs=0.15 * width) == grouped.upper


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_many_rows_cost_hardly_more_than_few(metric):
    """A million rows with all resamples take seconds and a bounded multiple of their own size."""
    import tracemalloc

    y, new, old = sample("binary", 1_000_000)
    began = time.process_time()

    tracemalloc.start()
    paired_difference("binary", metric, y, new * 0.999, old, confidence=0.95)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # Measured: 3 to 6 s of processor time; drawing the rows themselves takes minutes.
    assert time.process_time() - began < 40
    assert peak < 40 * y.nbytes
