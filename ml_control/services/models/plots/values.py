"""Plots of training and of predicted numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_control.errors import NotProven
from ml_control.ports import Round
from ml_control.services.models.plots.base import BLUE, GREY, ORANGE, RED, as_png, new_figure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

_POINTS_AT_MOST = 2000


def learning_curve(rounds: Sequence[Round], chosen: int) -> bytes:
    """Each logged metric by boosting round, training against validation, the chosen round marked.

    ``chosen`` is the index of the last round kept. Raises ``NotProven`` without any round.
    """
    names = {name.partition("-")[2] or name for one in rounds for name in one.metrics}
    if not names:
        raise NotProven("learning curve", "no round was logged", "look at the training log")
    figure, axes = new_figure(1, len(names), width=5.6 * len(names), height=3.6)
    for ax, metric in zip(axes, sorted(names), strict=True):
        styles = {"train": (GREY, "--"), "validation": (BLUE, "-")}
        for data, (colour, line) in styles.items():
            key = f"{data}-{metric}"
            points = [(one.index, one.metrics[key]) for one in rounds if key in one.metrics]
            if points:
                marker = "o" if len(points) == 1 else None
                ax.plot(*zip(*points, strict=True), line, color=colour, marker=marker, label=data)
        ax.axvline(chosen, color=ORANGE, linestyle=":", linewidth=2, label=f"kept: round {chosen}")
        ax.set(xlabel="boosting round", ylabel=metric, title=f"{metric} while training")
        ax.legend(frameon=False)
    return as_png(figure)


def residuals(y: Array, pred: Array) -> bytes:
    """Predicted against true values, and how the differences are spread; both ``(n,)``.

    Above 2,000 rows, evenly spaced ones are drawn as points; the histogram counts all.
    """
    import numpy as np

    y, pred = np.asarray(y, dtype=np.float64), np.asarray(pred, dtype=np.float64)
    rows = np.linspace(0, len(y) - 1, min(len(y), _POINTS_AT_MOST)).astype(np.int64)
    figure, (left, right) = new_figure(1, 2, width=9.0, height=3.9)
    left.scatter(y[rows], pred[rows], s=9, alpha=0.4, color=BLUE, linewidths=0)
    ends = [min(y.min(), pred.min()), max(y.max(), pred.max())]
    left.plot(ends, ends, ":", color=RED, label="exact")
    right.hist(pred - y, bins=50, color=BLUE)
    right.axvline(0, color=RED, linestyle="--", linewidth=2, label="exact")
    left.set(xlabel="true value", ylabel="predicted value", title="Predicted against true")
    right.set(xlabel="predicted minus true", ylabel="rows", title="Residuals on the test split")
    left.legend(frameon=False)
    right.legend(frameon=False)
    return as_png(figure)
