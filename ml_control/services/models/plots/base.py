"""What every plot shares: figures, colours, and bytes that are equal for equal input.

Drawn on matplotlib's objects, never through pyplot, whose global state is neither safe between
threads nor freed. Colours are Okabe and Ito's, which people with any colour vision can tell
apart, and every difference is also one of line, marker or word.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B7280"
#: For series beyond two, in order.
SERIES = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#F0E442", "#000000")
_DPI = 90
_LABEL_AT_MOST = 22


def new_figure(
    rows: int,
    columns: int,
    *,
    width: float,
    height: float,
    heights: Sequence[float] | None = None,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of ``rows`` times ``columns`` axes, sizes in inches."""
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


def as_png(figure: Figure) -> bytes:
    """The figure's bytes."""
    from matplotlib.image import imsave

    target = io.BytesIO()
    canvas: Any = figure.canvas
    with warnings.catch_warnings():
        # A class name may use a script that the font lacks: boxes are drawn, which is enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        canvas.draw()  # once: savefig draws twice, the first time only for the layout
    imsave(
        target,
        canvas.buffer_rgba(),
        format="png",
        metadata={"Software": ""},
        pil_kwargs={"optimize": True},
    )
    return target.getvalue()


def cut(text: str, length: int = _LABEL_AT_MOST) -> str:
    """Text on one line, shortened to a length."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
