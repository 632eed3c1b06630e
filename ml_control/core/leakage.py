"""Whether one column alone gives the target away.

A column scores by how well a rule that reads nothing else predicts the target, on rows that the
rule has not seen (two halves, each predicted from the other). So an identifier with another value
in every row scores nothing: a rule that learnt its values knows none of the other half's. Scores
lie in 0..1, and 1 means that the column decides the target:

* binary, numbers: the AUC of the values as they are, in the better direction (missing ones
  lowest or highest); this rule has nothing to learn. Also, as for more classes:
* classes, numbers: the mean recall of the classes, when a class is read from few intervals;
* classes, categories: the mean recall of the classes, when each level has its commonest class;
* regression, numbers: R2 of a straight line, of the ranks, or of a line through the means of
  narrow bins;
* regression, categories: R2 of the levels' means.

The mean recall rather than the accuracy, because always answering a class of 99.95 % has that
accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

LEAST_ROWS = 100
LEAST_OF_A_CLASS = 10
_RUN = 5  # rows of one class in a row, sorted by value, that make an interval
_INTERVALS = 8  # for each class; a rule of more is no plain leak
_BIN_ROWS = 20
_MOST_BINS = 500


def unjudged(frame: pl.DataFrame, spec: PipelineSpec) -> str:
    """Why the rows are too few to judge by; empty when they are enough."""
    if frame.height < LEAST_ROWS:
        return f"{frame.height} rows are too few to tell, {LEAST_ROWS} are needed"
    if spec.columns.task == "regression":
        return ""
    counts = frame[spec.columns.target].drop_nulls().value_counts()["count"].sort(descending=True)
    usable = int((counts >= LEAST_OF_A_CLASS).sum())
    if usable < 2:
        return f"fewer than two classes have {LEAST_OF_A_CLASS} rows, too few to tell"
    return ""


def scores(frame: pl.DataFrame, spec: PipelineSpec) -> dict[str, float]:
    """The score of each feature, largest first.

    *frame* has the features and the target, at least as many rows as :func:`unjudged` asks for.
    Rows that repeat another one count once: they would be seen by the rule and predicted by it.
    """
    import polars as pl

    columns = spec.columns
    features = [feature for feature in columns.features if feature.name in frame.columns]
    names = [feature.name for feature in features]
    # In a fixed order whatever the engine, so that the halves are the same in every run.
    rows = frame.select([*names, columns.target]).unique(maintain_order=True)
    if columns.task == "regression":
        rows = rows.filter(pl.col(columns.target).is_finite())
        target = rows[columns.target].cast(pl.Float64).to_numpy()
        classes = 0
    else:
        counts = rows[columns.target].drop_nulls().value_counts()
        kept = counts.filter(pl.col("count") >= LEAST_OF_A_CLASS)[columns.target].sort()
        rows = rows.filter(pl.col(columns.target).is_in(kept.to_list()))
        order = {label: place for place, label in enumerate(kept.to_list())}
        target = rows[columns.target].replace_strict(order, return_dtype=pl.Int64).to_numpy()
        classes = len(kept)
        if classes < 2:
            return {}
    found = {
        feature.name: _score(rows[feature.name], feature.type, target, classes)
        for feature in features
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _score(series: pl.Series, kind: str, target: NDArray[Any], classes: int) -> float:
    import numpy as np
    import polars as pl

    if kind == "number":
        values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        if not classes:
            return _number_r2(values, target)
        score = _interval_recall(values, target, classes)
        return max(score, _auc(values, target)) if classes == 2 else score
    codes = series.cast(pl.String).fill_null("\0missing").rank("dense").to_numpy().astype(np.int64)
    if not classes:
        return _cross_r2(target, (_level_means(codes, target, half) for half in (0, 1)))
    return _level_recall(codes, target, classes)


def _auc(values: NDArray[np.float64], target: NDArray[np.int64]) -> float:
    """Area under the curve in the better direction, with ties at half."""
    import numpy as np

    best = 0.5
    gaps = np.isnan(values)
    for end in (-np.inf, np.inf) if gaps.any() else (np.inf,):
        ranks = _ranks(np.where(gaps, end, values))
        positives = int(target.sum())
        negatives = len(target) - positives
        total = float(ranks[target == 1].sum()) - positives * (positives + 1) / 2
        area = total / (positives * negatives)
        best = max(best, area, 1 - area)
    return best


def _interval_recall(values: NDArray[np.float64], target: NDArray[np.int64], classes: int) -> float:
    """Mean recall when each interval of the sorted values has its class, missing ones too."""
    import numpy as np

    predicted = np.zeros(len(target), dtype=np.int64)
    for half in (0, 1):
        learnt, asked = _halves(len(target), half)
        own, labels = values[learnt], target[learnt]
        gaps = np.isnan(own)
        if gaps.any():
            predicted[asked] = np.bincount(labels[gaps], minlength=classes).argmax()
        order = np.argsort(own[~gaps], kind="stable")
        ordered, labels = own[~gaps][order], labels[~gaps][order]
        if not len(ordered):
            continue
        cuts, names = _intervals(ordered, labels, classes)
        present = asked[~np.isnan(values[asked])]
        predicted[present] = names[np.searchsorted(cuts, values[present], side="right")]
    return _mean_recall(predicted, target, classes)


def _intervals(
    ordered: NDArray[np.float64], labels: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Where one class gives way to another, and the class of each interval between."""
    import numpy as np

    # Rows of the same value are one thing to a rule, so they take their commonest class first.
    _, places, counts = np.unique(ordered, return_inverse=True, return_counts=True)
    if len(counts) < len(ordered):
        votes = np.bincount(places * classes + labels, minlength=len(counts) * classes)
        labels = votes.reshape(-1, classes).argmax(axis=1)[places]
    begins = np.flatnonzero(np.diff(labels, prepend=-1))
    lengths = np.diff(begins, append=len(labels))
    most = _INTERVALS * classes
    least = _RUN if len(lengths) <= most else max(_RUN, int(np.sort(lengths)[-most]))
    begins, lengths = begins[lengths >= least], lengths[lengths >= least]
    if not len(begins):
        return np.zeros(0), np.array([np.bincount(labels, minlength=classes).argmax()])
    # Neighbours of one class are one interval; a cut lies halfway into what was dropped.
    kept = np.flatnonzero(np.diff(labels[begins], prepend=-1))
    starts, ends = begins[kept], (begins + lengths)[np.append(kept[1:] - 1, len(begins) - 1)]
    cuts = (ordered[ends[:-1] - 1] + ordered[starts[1:]]) / 2
    return cuts, labels[starts]


def _level_recall(codes: NDArray[np.int64], target: NDArray[np.int64], classes: int) -> float:
    """Mean recall when each level has its commonest class; an unseen level has the first."""
    import numpy as np

    predicted = np.zeros(len(target), dtype=np.int64)
    levels = int(codes.max()) + 1
    for half in (0, 1):
        learnt, asked = _halves(len(target), half)
        names, places = np.unique(codes[learnt], return_inverse=True)
        votes = np.bincount(places * classes + target[learnt], minlength=len(names) * classes)
        common = np.bincount(target[learnt], minlength=classes).argmax()
        answer = np.full(levels, common, dtype=np.int64)
        answer[names] = votes.reshape(-1, classes).argmax(axis=1)
        predicted[asked] = answer[codes[asked]]
    return _mean_recall(predicted, target, classes)


def _mean_recall(predicted: NDArray[np.int64], target: NDArray[np.int64], classes: int) -> float:
    import numpy as np

    rows = np.bincount(target, minlength=classes)
    right = np.bincount(target[predicted == target], minlength=classes)
    return float((right / rows).mean())


def _number_r2(values: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """R2 of the best of a straight line, a line of ranks, and a line through bins' means."""
    import numpy as np

    found = [_cross_r2(target, (_bin_means(values, target, half) for half in (0, 1)))]
    if np.isfinite(values).all():
        pairs = ((values, target), (_ranks(values), _ranks(target)))
        found += [
            float(np.corrcoef(one, other)[0, 1]) ** 2
            for one, other in pairs
            if one.std() > 0 and other.std() > 0
        ]
    return max(found)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing their mean rank."""
    import numpy as np

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _bin_means(
    values: NDArray[np.float64], target: NDArray[np.float64], half: int
) -> NDArray[np.float64]:
    """The other half's prediction: between the means of narrow bins; missing values' mean."""
    import numpy as np

    learnt, asked = _halves(len(target), half)
    found = np.full(len(asked), target[learnt].mean())
    gaps = np.isnan(values[learnt])
    if gaps.any():
        found[:] = target[learnt][gaps].mean()
    order = learnt[~gaps][np.argsort(values[learnt][~gaps], kind="stable")]
    if not len(order):
        return found
    bins = min(_MOST_BINS, max(1, len(order) // _BIN_ROWS))
    middles, means = (
        np.array([part.mean() for part in np.array_split(column[order], bins)])
        for column in (values, target)
    )
    present = ~np.isnan(values[asked])
    found[present] = np.interp(values[asked][present], middles, means)
    return found


def _level_means(
    codes: NDArray[np.int64], target: NDArray[np.float64], half: int
) -> NDArray[np.float64]:
    """The other half's prediction: its level's mean, or the mean of all for an unseen level."""
    import numpy as np

    learnt, asked = _halves(len(target), half)
    levels = int(codes.max()) + 1
    rows = np.bincount(codes[learnt], minlength=levels)
    sums = np.bincount(codes[learnt], weights=target[learnt], minlength=levels)
    means = np.where(rows > 0, sums / np.maximum(rows, 1), target[learnt].mean())
    return means[codes[asked]]


def _cross_r2(target: NDArray[np.float64], predictions: Iterable[NDArray[np.float64]]) -> float:
    """R2 over both halves, each predicted from the other; at least 0."""
    import numpy as np

    total = float(((target - target.mean()) ** 2).sum())
    if total <= 0:
        return 0.0
    wrong = 0.0
    for half, predicted in enumerate(predictions):
        _, asked = _halves(len(target), half)
        wrong += float(((target[asked] - predicted) ** 2).sum())
    return float(np.clip(1 - wrong / total, 0.0, 1.0))


def _halves(rows: int, half: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places to learn from and those to predict: by a hash of the place.

    Every other row would follow files that alternate, such as pairs of a positive and a negative.
    """
    import numpy as np

    from ml_control.core.sampling import place_hash

    side = (place_hash(1 << 40, rows) >> np.uint64(63)) == np.uint64(half)
    return np.flatnonzero(~side), np.flatnonzero(side)
