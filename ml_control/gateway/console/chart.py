"""The confidence sequence as a picture: inline SVG, nothing fetched, nothing run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 960, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 16, 44
_TICKS = 5


class Look(NamedTuple):
    """What an experiment said at one look: challenger minus champion, with its bounds."""

    at: float  # UTC seconds
    samples: int  # entities with an outcome, of both arms
    estimate: float
    low: float
    high: float


def confidence_sequence(points: Sequence[Look], title: str) -> str:
    """Estimate and bounds of the difference over the outcomes seen; empty without a point.

    The band is valid at every look, so a reader may stop at any of them: where it leaves zero, the
    experiment has decided.
    """
    if not points:
        return ""
    xs = [float(point.samples) for point in points]
    # Early bounds are so wide that they would flatten everything after them.
    settled = points[len(points) // 3 :]
    low, high = min(p.low for p in settled), max(p.high for p in settled)
    low, high = min(low, 0.0), max(high, 0.0)
    pad = (high - low) * 0.08 or 0.01
    low, high = low - pad, high + pad
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 1.0, x_high + 1.0

    def x(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        inside = min(max(value, low), high)
        return _TOP + (high - inside) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(values: Sequence[float]) -> str:
        return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, values, strict=True))

    upper, lower = [p.high for p in points], [p.low for p in points]
    band = f"{path(upper)} " + " ".join(reversed(path(lower).split()))
    last = points[-1]
    seen = datetime.fromtimestamp(last.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    name, middle = escape(title), (_LEFT + _WIDTH - _RIGHT) / 2
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
    parts = [
        head,
        f"<title>{name}</title>",
        f'<polygon class="band" points="{band}"/>',
        _line("zero", (_LEFT, y(0)), (_WIDTH - _RIGHT, y(0))),
        f'<polyline class="bound" points="{path(upper)}"/>',
        f'<polyline class="bound" points="{path(lower)}"/>',
        f'<polyline class="estimate" points="{path([p.estimate for p in points])}"/>',
        f'<circle class="now" cx="{x(xs[-1]):.1f}" cy="{y(last.estimate):.1f}" r="4"/>',
        *(_text(_LEFT - 8, y(v) + 4, "end", f"{v:+.3g}") for v in ticks(low, high)),
        *(
            _text(x(v), _HEIGHT - 24, "middle", f"{int(v):,}")
            for v in ticks(x_low, x_high)
            if v == int(v)
        ),
        _text(middle, _HEIGHT - 6, "middle", f"entities with an outcome; last look {seen}"),
        "</svg>",
    ]
    return "".join(parts)


def _line(kind: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    (a, b), (c, d) = start, end
    return f'<line class="{kind}" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers within a range."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step)
    return [round(n * step, 12) for n in range(first, math.floor(high / step) + 1)]
