"""Plots of contributions: what each feature added to the predictions of a sample of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.evidence import Contributions
from ml_control.errors import NotProven
from ml_control.services.models.plots.base import (
    BLUE,
    GREY,
    SERIES,
    as_png,
    cut,
    new_figure,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

_FEATURES_SHOWN = 15
_SWARMS_SHOWN = 10
_SWARM_BINS = 70
_IMAGES_SHOWN = 12


def by_feature(found: Contributions) -> tuple[tuple[str, ...], Array]:
    """Names, and contributions ``(rows, classes, features)``: the columns of one feature added up.

    The parts of a category that became several columns cancel each other, so their sum is what
    the category did. The bias is left out.
    """
    import numpy as np

    names = tuple(dict.fromkeys(found.sources))
    values = np.asarray(found.values, dtype=np.float64)
    if values.ndim == 2:
        values = values[:, None, :]
    place = {name: number for number, name in enumerate(names)}
    columns = np.array([place[name] for name in found.sources])
    membership = np.zeros((len(columns), len(names)))
    membership[np.arange(len(columns)), columns] = 1.0
    return names, np.asarray(values[:, :, : len(columns)] @ membership)


def importance(found: Contributions, labels: Sequence[str], unit: str) -> bytes:
    """Mean size of the contribution of each feature, the largest first; by class if several."""
    import numpy as np

    names, values = by_feature(found)
    size = np.abs(values).mean(axis=0)  # (classes, features)
    order = np.argsort(-size.sum(axis=0), kind="stable")[:_FEATURES_SHOWN]
    figure, (ax,) = new_figure(1, 1, width=7.6, height=0.3 * len(order) + 1.3)
    rows = np.arange(len(order))
    classes = len(size)
    left = np.zeros(len(order))
    for number in range(min(classes, len(SERIES))):
        last = number == len(SERIES) - 1 and classes > len(SERIES)
        part = size[number:].sum(axis=0) if last else size[number]
        name = "other classes" if last else cut(labels[number]) if classes > 1 else ""
        # A label is data: one that begins with _ would be left out, one with $ read as formula.
        ax.barh(rows, part[order], left=left, color=SERIES[number], label=f"\u200b{name}")
        left += part[order]
    ax.set_yticks(rows, [cut(names[place]) for place in order])
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    ax.set(ylim=(len(order) - 0.4, -0.6), xlabel=f"mean size of the contribution ({unit})")
    ax.set_title(f"What moves predictions, {len(values):,} test rows", fontsize=10)
    if classes > 1:
        legend = ax.legend(frameon=False, loc="lower right", fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return as_png(figure)


def swarm(found: Contributions, unit: str) -> bytes:
    """One dot for each row and feature, coloured by the feature's value where it is one number.

    Raises ``NotProven`` for several classes, which one axis cannot show.
    """
    import numpy as np

    names, values = by_feature(found)
    if values.shape[1] != 1:
        raise NotProven("swarm", "several classes have no common axis", "see the bars")
    one = values[:, 0, :]
    order = np.argsort(-np.abs(one).mean(axis=0), kind="stable")[:_SWARMS_SHOWN]
    sources = np.array(found.sources)
    figure, (ax,) = new_figure(1, 1, width=7.6, height=0.46 * len(order) + 1.2)
    ax.axvline(0, color=GREY, linewidth=1)
    dots = None
    for row, place in enumerate(order):
        x = one[:, place]
        y = row + _jitter(x, float(np.ptp(one[:, order])) or 1.0)
        columns = np.flatnonzero(sources == names[place])
        cells = found.rows[:, columns[0]] if len(columns) == 1 else np.full(len(x), np.nan)
        known = np.isfinite(cells)
        if not known.all():
            ax.scatter(x[~known], y[~known], s=7, color="#9CA3AF", linewidths=0)
        if known.any():
            rank = np.searchsorted(np.sort(cells[known]), cells[known], side="right")
            share = rank / known.sum()
            dots = ax.scatter(
                x[known], y[known], s=7, c=share, cmap="cividis", vmin=0, vmax=1, linewidths=0
            )
    ax.set_yticks(range(len(order)), [cut(names[place]) for place in order])
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    ax.set(ylim=(len(order) - 0.4, -0.6), xlabel=f"contribution to the prediction ({unit})")
    ax.grid(visible=False, axis="y")
    if dots is not None:
        bar = figure.colorbar(dots, ax=ax, shrink=0.7, ticks=[0, 1])
        bar.ax.set_yticklabels(["low", "high"])
        bar.set_label("value (grey: missing, category)", fontsize=8)
    ax.set_title("Contribution of each feature, a dot for each row", fontsize=10)
    return as_png(figure)


def _jitter(x: Array, spread: float) -> Array:
    """Offsets that stack dots of nearly the same place symmetrically; the same every time."""
    import numpy as np

    bins = np.floor(x / spread * _SWARM_BINS).astype(np.int64)
    order = np.argsort(bins, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(bins[order])) + 1]
    position = np.arange(len(x)) - np.repeat(starts, np.diff(np.r_[starts, len(x)]))
    most = max(int(position.max(initial=0)), 8)
    offsets = np.empty(len(x))
    side = np.where(position % 2 == 0, 1.0, -1.0)
    offsets[order] = side * ((position + 1) // 2) * (0.8 / most)
    return offsets


def pixels(found: Contributions, labels: Sequence[str]) -> bytes:
    """For images: where in the picture predictions come from, one map for each class."""
    import numpy as np

    if found.image is None:
        raise NotProven("pixels", "the features are no image", "see the bars")
    height, width, channels = found.image
    values = np.asarray(found.values, dtype=np.float64)
    if values.ndim == 2:
        values = values[:, None, :]
    size = np.abs(values[:, :, : height * width * channels]).mean(axis=0)
    maps = size.reshape(len(size), height, width, channels).sum(axis=3)[:_IMAGES_SHOWN]
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure, axes = new_figure(rows, columns, width=1.9 * columns + 0.4, height=2.0 * rows + 0.3)
    for ax in axes[len(maps) :]:
        ax.set_visible(False)
    for number, (ax, one) in enumerate(zip(axes, maps, strict=False)):
        ax.imshow(one, cmap="cividis", vmin=0, vmax=float(maps.max()) or 1.0)
        name = labels[number] if len(maps) > 1 else "all classes"
        ax.set_title(cut(name), fontsize=9, color=BLUE, parse_math=False)
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    return as_png(figure)
