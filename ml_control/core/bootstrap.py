"""Is the candidate worse than the champion, or is it chance? A paired bootstrap of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_control.core.metrics import checked, evaluate
from ml_control.core.resampled import ranked, sums_of
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import LOWER_IS_BETTER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    #: A metric over resamples: counts (r, n) of how often each unit was drawn -> values (r,).
    Resampled = Callable[[Floats], Floats]

#: Up to so many rows are drawn one by one; more are drawn in so many groups.
_DRAWN = 50_000
_GROUPS = 20_000
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
    drawn: int = _DRAWN,
    groups: int = _GROUPS,
) -> Difference:
    """How much better the candidate is than the champion on the same rows, with bounds.

    Percentile bootstrap of paired rows (B. Efron and R. Tibshirani, *An Introduction to the
    Bootstrap*, 1993, chapter 13): for b = 1..B draw n rows with replacement, the same rows for
    both models, and compute ``d_b = s * (metric(candidate_b) - metric(champion_b))`` with s = -1
    for metrics where lower is better. With d_(1) <= ... <= d_(B) the one-sided bounds are
    ``lower = d_(ceil(B * (1 - confidence)))`` and ``upper = d_(ceil(B * confidence))``. Drawing
    rows in pairs takes out the variation that both models share.

    More than ``drawn`` rows are first put into ``groups`` groups at random, of equal size but for
    one row, and whole groups are drawn: every metric is a function of sums over rows, and sums of
    random groups vary among each other as their rows do, so the bounds estimate the same; their
    width is uncertain by a share of 1 / sqrt(2 * groups) more, which is 0.5%. The cost of a
    resample is then the same for any number of rows. AUC is no function of sums; there it is taken
    at first order (see :func:`ml_control.core.resampled.sums_of`).

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

    rng = np.random.default_rng(seed)
    group = rng.permutation(len(y)) % groups if len(y) > drawn else None
    first, second = (_resampled(metric, y, p, group) for p in (new, old))
    units = len(y) if group is None else min(groups, len(y))
    values = np.concatenate(
        [first(counts) - second(counts) for counts in _counts(rng, units, resamples)]
    )
    found = sign * values[np.isfinite(values)]
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
    how often each unit was drawn.
    """
    import numpy as np

    block = max(1, _CHUNK_CELLS // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # One bincount of uniform draws is several times faster than rng.multinomial.
        draws = rng.integers(0, n, size=(size, n), dtype=np.int64)
        draws += np.arange(size, dtype=np.int64)[:, None] * n
        yield np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _resampled(metric: str, y: Floats, p: Floats, group: NDArray[np.int64] | None) -> Resampled:
    """The metric of one model as a function of how often each unit was drawn; nan where undefined.

    The units are the rows, or with ``group``, the group number of each row, the groups.
    """
    import numpy as np

    if group is None and metric == "auc":
        return ranked(y, p)
    columns, combine = sums_of(metric, y, p)
    if group is None:
        table = np.column_stack([np.ones(len(y)), *columns])
    else:
        parts = (np.bincount(group, weights=column) for column in columns)
        table = np.column_stack([np.bincount(group), *parts])

    def values(counts: Floats) -> Floats:
        sums = counts @ table
        return combine(sums[:, 1:], sums[:, 0])

    return values
