"""Is the candidate worse than the champion, or is it chance? A paired bootstrap of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_control.core.metrics import (
    checked,
    evaluate,
    predicted_classes,
    row_log_losses,
)
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import LOWER_IS_BETTER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    #: A metric over resamples: counts (r, n) of how often each row was drawn -> values (r,).
    Resampled = Callable[[Floats], Floats]

#: Row counts held at once: 8 MB, and a few arrays of that size.
_CHUNK_CELLS = 1_000_000
#: More resamples without a value than this share and the bound would describe other data.
_MAX_UNDEFINED = 0.05


@dataclass(frozen=True)
class Difference:
    """Candidate minus champion, signed so that positive is better for the candidate.

    ``mean`` is the difference on the rows as they are; ``lower`` and ``upper`` are one-sided
    bounds, each at the confidence asked for; ``resamples`` had a value; ``n`` rows were drawn.
    """

    mean: float
    lower: float
    upper: float
    resamples: int
    n: int


def paired_difference(
    task: str,
    metric: str,
    y_true: Any,
    candidate: Any,
    champion: Any,
    *,
    confidence: float,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """How much better the candidate is than the champion on the same rows, with bounds.

    Percentile bootstrap of paired rows (B. Efron and R. Tibshirani, *An Introduction to the
    Bootstrap*, 1993, chapter 13): for b = 1..B draw n rows with replacement, the same rows for
    both models, and compute ``d_b = s * (metric(candidate_b) - metric(champion_b))`` with s = -1
    for metrics where lower is better. With d_(1) <= ... <= d_(B) the one-sided bounds are
    ``lower = d_(ceil(B * (1 - confidence)))`` and ``upper = d_(ceil(B * confidence))``. Drawing
    rows in pairs takes out the variation that both models share.

    Arrays are as in :mod:`ml_control.core.metrics`. The same arguments always give the same
    result. Resamples on which the metric is undefined (a single class) are left out. Raises
    ``NotProven`` when they are more than 5%, when the metric is undefined on the rows
    themselves, when there are fewer than two rows or the arrays are unusable; ``InvalidSpec``
    for a confidence not between 0.5 and 1, or fewer than 100 resamples.
    """
    import numpy as np

    if not 0.5 < confidence < 1.0:
        raise InvalidSpec("confidence", f"{confidence} is not between 0.5 and 1")
    if resamples < 100:
        raise InvalidSpec("resamples", f"{resamples} are too few for a bound; take at least 100")
    y, new = checked(task, y_true, candidate)
    _, old = checked(task, y_true, champion)
    if new.shape != old.shape:
        raise NotProven(
            "champion",
            f"its predictions have shape {old.shape}, the candidate's {new.shape}",
            "train a champion for the present classes, or compare on rows that both know",
        )
    if len(y) < 2:
        raise NotProven("test split", "one row cannot be resampled", "collect more data")
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    observed = sign * (evaluate(task, y, new, metric) - evaluate(task, y, old, metric))
    if np.array_equal(new, old):  # exactly nothing, whatever order sums are taken in
        return Difference(observed, 0.0, 0.0, resamples, len(y))

    first, second = _resampled(metric, y, new), _resampled(metric, y, old)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [first(counts) - second(counts) for counts in _counts(rng, len(y), resamples)]
    )
    found = sign * drawn[np.isfinite(drawn)]
    if len(found) < (1.0 - _MAX_UNDEFINED) * resamples:
        raise NotProven(
            metric,
            f"undefined on {resamples - len(found)} of {resamples} resamples of {len(y)} rows",
            "collect more test rows of the rare class, or compare by another metric",
        )
    lower, upper = np.quantile(found, [1.0 - confidence, confidence], method="inverted_cdf")
    return Difference(observed, float(lower), float(upper), len(found), len(y))


def _counts(rng: np.random.Generator, n: int, resamples: int) -> Iterator[Floats]:
    """Multinomial counts ``(r, n)``, a block of resamples at a time: each row of a block says
    how often each data row was drawn.
    """
    import numpy as np

    block = max(1, _CHUNK_CELLS // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # One bincount of uniform draws is several times faster than rng.multinomial.
        draws = rng.integers(0, n, size=(size, n), dtype=np.int64)
        draws += np.arange(size, dtype=np.int64)[:, None] * n
        yield np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _resampled(metric: str, y: Floats, p: Floats) -> Resampled:
    """The metric of one model as a function of row counts; nan where it is undefined."""
    import numpy as np

    if metric == "accuracy":
        return _mean_of((predicted_classes(p) == y).astype(np.float64))
    if metric == "logloss":
        return _mean_of(row_log_losses(y, p))
    if metric == "mae":
        return _mean_of(np.abs(y - p))
    if metric == "rmse":
        mean_square = _mean_of((y - p) ** 2)
        return lambda counts: np.sqrt(mean_square(counts))
    if metric == "r2":
        return _r2(y, p)
    if metric == "auc":
        return _auc(y, p)
    if metric in {"f1", "precision", "recall", "f1_macro"}:
        return _from_confusion(metric, y, predicted_classes(p), p.shape[1] if p.ndim == 2 else 2)
    raise InvalidSpec(metric, "has no form for resampling", "compare by another metric")


def _mean_of(contributions: Floats) -> Resampled:
    """A metric that is the mean of what each row contributes."""
    return lambda counts: counts @ contributions / len(contributions)


def _r2(y: Floats, p: Floats) -> Resampled:
    import numpy as np

    n = len(y)
    centred = y - y.mean()  # the sums of squares would cancel badly around a large mean
    squares = np.column_stack([(y - p) ** 2, centred**2, centred])

    def values(counts: Floats) -> Floats:
        residual, total, linear = (counts @ squares).T
        spread = total - linear**2 / n
        level = np.finfo(np.float64).eps * n * total  # below it the target did not vary
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread > level, 1.0 - residual / spread, np.nan)

    return values


def _auc(y: Floats, p: Floats) -> Resampled:
    """The Mann-Whitney form: the share of (positive, negative) pairs in the right order, ties
    counting half. Sorted once; a resample only changes the rows' weights.
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


def _from_confusion(metric: str, y: Floats, guessed: NDArray[np.int64], classes: int) -> Resampled:
    """f1, precision, recall and f1_macro from per-class counts of hits, guesses and truths."""
    import numpy as np

    wanted = range(classes) if metric == "f1_macro" else range(1, 2)
    truth = np.column_stack([(y == k) for k in wanted]).astype(np.float64)
    guess = np.column_stack([(guessed == k) for k in wanted]).astype(np.float64)

    def values(counts: Floats) -> Floats:
        hits, true, found = counts @ (truth * guess), counts @ truth, counts @ guess
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

    return values
