"""Plots of predicted classes and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_control.errors import NotProven
from ml_control.services.models.plots.base import BLUE, GREY, ORANGE, as_png, cut, new_figure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

_NUMBERED_CLASSES = 15
_TICKS_AT_MOST = 30
_BINS = 10
_Z95 = 1.959963984540054


def confusion(y: Array, pred: NDArray[np.int64], labels: Sequence[str]) -> bytes:
    """Counts of true against predicted class, shaded by share of the true class.

    ``y`` and ``pred`` are class indices ``(n,)`` into ``labels``.
    """
    import numpy as np

    k = len(labels)
    counts = np.zeros((k, k), dtype=np.int64)
    np.add.at(counts, (np.asarray(y, dtype=np.int64), np.asarray(pred, dtype=np.int64)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(9.0, max(4.2, 0.55 * k + 2.4))
    figure, (ax,) = new_figure(1, 1, width=side + 0.8, height=side)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, shrink=0.8, label="share of the true class")
    step = max(1, -(-k // _TICKS_AT_MOST))
    places = list(range(0, k, step))
    names = [cut(labels[place]) for place in places]
    # Labels are data: a $ in one must not be read as mathematics.
    ax.set_xticks(places, names, rotation=45 if k > 3 else 0, ha="right" if k > 3 else "center")
    ax.set_yticks(places, names)
    for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        text.set_parse_math(False)
    if k <= _NUMBERED_CLASSES:
        for row in range(k):
            for column in range(k):
                colour = "white" if share[row, column] > 0.55 else "#111827"
                ax.text(
                    column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour
                )
    ax.grid(visible=False)
    ax.set(xlabel="predicted class", ylabel="true class", title="Confusion on the test split")
    return as_png(figure)


def roc_pr(y: Array, score: Array, champion: Array | None = None) -> bytes:
    """ROC and precision-recall curves of binary scores ``(n,)``, the champion's dashed beside.

    Raises ``NotProven`` when only one class occurs.
    """
    import numpy as np
    from sklearn.metrics import (
        average_precision_score,
        precision_recall_curve,
        roc_auc_score,
        roc_curve,
    )

    if len(np.unique(y)) < 2:
        raise NotProven("ROC curve", "the test split has a single class", "collect more data")
    figure, (left, right) = new_figure(1, 2, width=9.0, height=3.9)
    drawn = [("candidate", score, BLUE, "-")]
    if champion is not None:
        drawn.append(("champion", champion, ORANGE, "--"))
    for name, values, colour, line in drawn:
        false, true, _ = roc_curve(y, values)
        area = roc_auc_score(y, values)
        left.plot(false, true, line, color=colour, label=f"{name}, area {area:.4f}")
        precision, recall, _ = precision_recall_curve(y, values)
        area = average_precision_score(y, values)
        right.step(
            recall, precision, line, color=colour, where="post", label=f"{name}, average {area:.4f}"
        )
    share = float(np.mean(y))
    left.plot([0, 1], [0, 1], ":", color=GREY, label="chance")
    right.axhline(share, linestyle=":", color=GREY, label=f"chance {share:.3f}")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="Precision and recall", ylim=(-0.02, 1.05))
    left.legend(frameon=False, loc="lower right")
    right.legend(frameon=False, loc="lower left")
    return as_png(figure)


def calibration(y: Array, score: Array) -> bytes:
    """Observed share of positives against predicted probability, in ten bins of equal counts.

    Bars are 95% Wilson intervals. ``y`` is 0/1 and ``score`` P(positive), both ``(n,)``.
    """
    import numpy as np

    y, score = np.asarray(y, dtype=np.float64), np.asarray(score, dtype=np.float64)
    order = np.argsort(score, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if len(part)]
    predicted = np.array([score[part].mean() for part in bins])
    observed = np.array([y[part].mean() for part in bins])
    low, high = _wilson(observed, np.array([len(part) for part in bins]))
    figure, (upper, lower) = new_figure(2, 1, width=5.6, height=5.6, heights=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], ":", color=GREY, label="perfectly calibrated")
    upper.errorbar(
        predicted,
        observed,
        yerr=[observed - low, high - observed],
        fmt="o-",
        color=BLUE,
        capsize=3,
        label="candidate, 95% interval",
    )
    lower.hist(score, bins=40, range=(0, 1), color=BLUE)
    upper.set(ylabel="observed share", title="Calibration", xlim=(-0.02, 1.02), ylim=(-0.05, 1.05))
    lower.set(xlabel="predicted probability", ylabel="rows")
    upper.legend(frameon=False, loc="upper left")
    return as_png(figure)


def _wilson(share: Array, n: NDArray[np.int64]) -> tuple[Array, Array]:
    """95% score interval of a share (E. B. Wilson 1927)."""
    import numpy as np

    z2 = _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    # Rounding may put a bound on the wrong side of a share of 0 or 1.
    return np.minimum(middle - half, share), np.maximum(middle + half, share)
