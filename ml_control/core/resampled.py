"""Metrics as functions of resampled rows: of sums over them where possible, else of their ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ml_control.core.metrics import predicted_classes, row_log_losses
from ml_control.errors import InvalidSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    #: Sums (r, k) of k columns over the rows of each resample, and how many rows those are (r,),
    #: to the metric (r,); nan where it is undefined.
    Combined = Callable[[Floats, Floats], Floats]


def sums_of(metric: str, y: Floats, p: Floats) -> tuple[Iterable[Floats], Combined]:
    """Columns ``(n,)`` of what each row contributes, and the metric as a function of their sums.

    AUC is given at first order: each positive row contributes the share of negatives that it is
    ranked above, each negative the share of positives below which it is ranked (E. DeLong,
    D. DeLong and D. Clarke-Pearson, *Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves*, 1988). What is left out is of the order of one over the root
    of (positives times negatives). Raises ``InvalidSpec`` for a metric that has no such form.
    """
    import numpy as np

    if metric == "accuracy":
        return [(predicted_classes(p) == y).astype(np.float64)], _mean
    if metric == "logloss":
        return [row_log_losses(y, p)], _mean
    if metric == "mae":
        return [np.abs(y - p)], _mean
    if metric == "rmse":
        return [(y - p) ** 2], lambda sums, rows: np.sqrt(_mean(sums, rows))
    if metric == "r2":
        centred = y - y.mean()  # the sums of squares would cancel badly around a large mean
        return [(y - p) ** 2, centred**2, centred], _r2
    if metric == "auc":
        return _placements(y, p)
    if metric in {"f1", "precision", "recall", "f1_macro"}:
        classes = range(p.shape[1] if p.ndim == 2 else 2) if metric == "f1_macro" else range(1, 2)
        return _hits(y, predicted_classes(p), classes), _class_metric(metric)
    raise InvalidSpec(metric, "has no form for resampling", "compare by another metric")


def _mean(sums: Floats, rows: Floats) -> Floats:
    return sums[:, 0] / rows


def _r2(sums: Floats, rows: Floats) -> Floats:
    import numpy as np

    residual, total, linear = sums.T
    spread = total - linear**2 / rows
    level = np.finfo(np.float64).eps * rows * total  # below it the target did not vary
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > level, 1.0 - residual / spread, np.nan)


def _hits(y: Floats, guessed: NDArray[np.int64], classes: Iterable[int]) -> Iterator[Floats]:
    """For each class: right guesses of it, rows of it, guesses of it; one column at a time."""
    import numpy as np

    for k in classes:
        truth, guess = y == k, guessed == k
        for column in (truth & guess, truth, guess):
            yield column.astype(np.float64)


def _class_metric(metric: str) -> Combined:
    """f1, precision, recall and f1_macro from each class's hits, rows and guesses."""
    import numpy as np

    def combine(sums: Floats, rows: Floats) -> Floats:  # noqa: ARG001 - every metric's form
        hits, true, found = (sums[:, at::3] for at in range(3))
        top, bottom = {
            "precision": (hits, found),
            "recall": (hits, true),
        }.get(metric, (2.0 * hits, true + found))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(bottom > 0, top / bottom, np.nan)
        # A class that occurs neither in labels nor in predictions takes no part in the average.
        present = np.count_nonzero(bottom > 0, axis=1)
        total = np.nansum(ratio, axis=1)
        return np.where(present > 0, total / np.maximum(present, 1), np.nan)

    return combine


def _placements(y: Floats, p: Floats) -> tuple[list[Floats], Combined]:
    """AUC at first order, from each row's place among the rows of the other class."""
    import numpy as np

    positive = y == 1
    above, below = p[positive], p[~positive]
    column = np.empty(len(y))
    column[positive] = _share_below(above, below)
    column[~positive] = 1.0 - _share_below(below, above)
    auc = float(column[positive].mean())
    columns = [column * positive, positive.astype(float), column * ~positive]

    def combine(sums: Floats, rows: Floats) -> Floats:
        plus, positives, minus = sums.T
        negatives = rows - positives
        with np.errstate(divide="ignore", invalid="ignore"):
            found = plus / positives + minus / negatives - auc
        return np.where((positives > 0) & (negatives > 0), found, np.nan)

    return columns, combine


def _share_below(values: Floats, others: Floats) -> Floats:
    """For each value the share of others that are below it, equal ones counting half."""
    import numpy as np

    distinct, back = np.unique(values, return_inverse=True)  # sorted look-ups are far faster
    ordered = np.sort(others)
    both = np.searchsorted(ordered, distinct, "left") + np.searchsorted(ordered, distinct, "right")
    return np.asarray((both / (2.0 * len(others)))[back], dtype=np.float64)


def ranked(y: Floats, p: Floats) -> Callable[[Floats], Floats]:
    """AUC over counts ``(r, n)`` of how often each row was drawn, in the Mann-Whitney form: the
    share of (positive, negative) pairs in the right order, ties counting half. Sorted once; a
    resample only changes the rows' weights.
    """
    import numpy as np

    order = np.argsort(p, kind="stable")
    positive = y[order] == 1
    ties = np.flatnonzero(np.r_[True, np.diff(p[order]) != 0])
    tied = len(ties) < len(p)

    def values(counts: Floats) -> Floats:
        weights = counts[:, order]
        plus, minus = weights * positive, weights * ~positive
        if tied:
            plus = np.add.reduceat(plus, ties, axis=1)
            minus = np.add.reduceat(minus, ties, axis=1)
        below = np.cumsum(minus, axis=1)
        below -= minus / 2.0
        wins = np.einsum("ij,ij->i", plus, below)
        pairs = plus.sum(axis=1) * minus.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(pairs > 0, wins / pairs, np.nan)

    return values
