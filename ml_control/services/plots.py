"""Plots of a model as PNG bytes.

Drawn on matplotlib's objects, never through pyplot, whose global state is neither safe between
threads nor freed. Colours are Okabe and Ito's, which people with any colour vision can tell
apart, and every difference is also one of line, marker or word.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.metrics import predicted_classes
from ml_control.core.records import GateResult
from ml_control.errors import NotProven
from ml_control.ports import Round

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B7280"
_DPI = 110
_POINTS_AT_MOST = 4000
_NUMBERED_CLASSES = 15
_TICKS_AT_MOST = 30
_BINS = 10
_LABEL_AT_MOST = 22
_Z95 = 1.959963984540054


def learning_curve(rounds: Sequence[Round], chosen: int) -> bytes:
    """Each logged metric by boosting round, training against validation, the chosen round marked.

    ``chosen`` is the index of the last round kept. Raises ``NotProven`` without any round.
    """
    names = {name.partition("-")[2] or name for one in rounds for name in one.metrics}
    if not names:
        raise NotProven("learning curve", "no round was logged", "look at the training log")
    figure, axes = _figure(1, len(names), width=5.6 * len(names), height=3.6)
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
    return _png(figure)


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
    figure, (ax,) = _figure(1, 1, width=side + 0.8, height=side)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, shrink=0.8, label="share of the true class")
    step = max(1, -(-k // _TICKS_AT_MOST))
    places = list(range(0, k, step))
    names = [_cut(labels[place]) for place in places]
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
    return _png(figure)


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
    figure, (left, right) = _figure(1, 2, width=10.4, height=4.4)
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
    return _png(figure)


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
    figure, (upper, lower) = _figure(2, 1, width=5.6, height=5.6, heights=(3, 1), sharex=True)
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
    return _png(figure)


def residuals(y: Array, pred: Array) -> bytes:
    """Predicted against true values, and how the differences are spread; both ``(n,)``.

    Above 4,000 rows, evenly spaced ones are drawn as points; the histogram counts all.
    """
    import numpy as np

    y, pred = np.asarray(y, dtype=np.float64), np.asarray(pred, dtype=np.float64)
    rows = np.linspace(0, len(y) - 1, min(len(y), _POINTS_AT_MOST)).astype(np.int64)
    figure, (left, right) = _figure(1, 2, width=10.4, height=4.4)
    left.scatter(y[rows], pred[rows], s=9, alpha=0.4, color=BLUE, linewidths=0)
    ends = [min(y.min(), pred.min()), max(y.max(), pred.max())]
    left.plot(ends, ends, ":", color=RED, label="exact")
    right.hist(pred - y, bins=50, color=BLUE)
    right.axvline(0, color=RED, linestyle="--", linewidth=2, label="exact")
    left.set(xlabel="true value", ylabel="predicted value", title="Predicted against true")
    right.set(xlabel="predicted minus true", ylabel="rows", title="Residuals on the test split")
    left.legend(frameon=False)
    right.legend(frameon=False)
    return _png(figure)


def gates_overview(gates: Sequence[GateResult]) -> bytes:
    """Every gate in one picture: its mark, what was observed and what was required."""
    if not gates:
        raise NotProven("gates", "the verdict has none", "gate the model again")
    figure, (ax,) = _figure(1, 1, width=9.6, height=0.42 * len(gates) + 0.7)
    for row, gate in enumerate(gates):
        marker, colour = ("o", GREEN) if gate.passed else ("X", RED)
        ax.plot(0.02, row, marker, color=colour, markersize=11)
        ax.text(0.05, row, "passed" if gate.passed else "FAILED", va="center", color=colour)
        seen = "" if gate.observed is None else f"{gate.observed:.6g}"
        ax.text(0.14, row, _cut(gate.name), va="center", weight="bold", parse_math=False)
        ax.text(0.46, row, seen, va="center", ha="right", parse_math=False)
        ax.text(0.49, row, _cut(gate.required, 60), va="center", color=GREY, parse_math=False)
    ax.set(xlim=(0, 1), ylim=(len(gates) - 0.5, -0.8), xticks=[], yticks=[])
    ax.text(0.46, -0.7, "observed", ha="right", color=GREY)
    ax.text(0.49, -0.7, "required", color=GREY)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return _png(figure)


def for_task(
    task: str,
    y: Array,
    predictions: Array,
    labels: Sequence[str],
    champion: Array | None = None,
) -> dict[str, bytes]:
    """The plots that a task's test predictions call for, by title.

    A curve that these rows do not define is left out. Arrays as in
    :mod:`ml_control.core.metrics`.
    """
    import numpy as np

    values = np.asarray(predictions, dtype=np.float64)
    if task == "regression":
        return {"Residuals": residuals(y, values)}
    found: dict[str, bytes] = {}
    if task == "binary":
        if len(np.unique(y)) > 1:
            found["ROC, precision and recall"] = roc_pr(y, values, champion)
        found["Calibration"] = calibration(y, values)
    found["Confusion"] = confusion(y, predicted_classes(values), labels)
    return found


def _wilson(share: Array, n: NDArray[np.int64]) -> tuple[Array, Array]:
    """95% score interval of a share (E. B. Wilson 1927)."""
    import numpy as np

    z2 = _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    # Rounding may put a bound on the wrong side of a share of 0 or 1.
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def _figure(
    rows: int,
    columns: int,
    *,
    width: float,
    height: float,
    heights: Sequence[float] | None = None,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, height_ratios=heights)
    axes = list(grid.ravel())
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(visible=True, color="#E5E7EB", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    target = io.BytesIO()
    with warnings.catch_warnings():
        # A class name may use a script that the font lacks: boxes are drawn, which is enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _cut(text: str, length: int = _LABEL_AT_MOST) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
