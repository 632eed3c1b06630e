"""The report's table of columns: what the training data looked like."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from html import escape
from itertools import accumulate, pairwise
from typing import Any

from ml_control.services.models.report.html import Html, Number, histogram, number, some_rows, table

_LEVELS_SHOWN = 5
_BARS_SHOWN = 24
_COLUMNS_SHOWN = 300


def columns_table(profile: Mapping[str, Any]) -> str:
    """Each column's values, missing ones, and the shape of what it contains."""
    described = {**profile.get("features", {}), "target": profile.get("target") or {}}
    rows = [
        (
            name,
            number(about.get("count")),
            number(about.get("missing")),
            _bars(about),
            _values(about),
        )
        for name, about in described.items()
        if isinstance(about, Mapping)
    ]
    heads = ("column", Number("values"), Number("missing"), "shape", "contents")
    shown, more = some_rows(rows, _COLUMNS_SHOWN)
    note = (
        f'<p class="note">{escape(str(profile.get("rows", "")))} rows. Bars of numbers: the middle '
        "98% of values, evenly cut; of categories: the most frequent first.</p>"
    )
    return table(heads, shown) + more + note


def _values(about: Mapping[str, Any]) -> str:
    levels = about.get("levels")
    if isinstance(levels, Mapping):
        most = sorted(levels.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{level} ({count:,})" for level, count in most[:_LEVELS_SHOWN])
        more = len(most) - _LEVELS_SHOWN
        return f"{shown}, and {more} more" if more > 0 else shown
    found = [(word, about.get(word)) for word in ("min", "mean", "max")]
    return ", ".join(f"{word} {value:.6g}" for word, value in found if value is not None)


def _bars(about: Mapping[str, Any]) -> Html:
    levels = about.get("levels")
    if isinstance(levels, Mapping):
        return histogram(sorted(levels.values(), reverse=True)[:_BARS_SHOWN])
    bins = about.get("bins")
    if not isinstance(bins, Mapping) or len(bins.get("edges", ())) < 2:
        return Html("")
    return histogram(_even(list(bins["edges"]), list(bins["counts"])))


def _even(edges: list[float], counts: list[float]) -> list[float]:
    """Counts in even bins over the middle 98% of values, by interpolation inside the bins."""
    heights = [0.0, *accumulate(counts)]
    low, high = (_at(heights, edges, share * heights[-1]) for share in (0.01, 0.99))
    if not low < high:
        return []
    places = [low + (high - low) * step / _BARS_SHOWN for step in range(_BARS_SHOWN + 1)]
    below = [_at(edges, heights, place) for place in places]
    return [max(0.0, after - before) for before, after in pairwise(below)]


def _at(xs: list[float], ys: list[float], x: float) -> float:
    """``y`` at ``x`` on the line through the points; ``xs`` do not fall."""
    right = min(max(bisect_right(xs, x), 1), len(xs) - 1)
    left = right - 1
    width = xs[right] - xs[left]
    share = min(max((x - xs[left]) / width, 0.0), 1.0) if width > 0 else 1.0
    return ys[left] + share * (ys[right] - ys[left])
