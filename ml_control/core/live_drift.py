"""How far live requests and predictions are from what a model was trained on, from counts alone.

The index and what chance gives are those of :mod:`ml_control.core.drift`; here both sides are
summaries as a profile has them, so that a look costs what the columns cost and no request is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_control.core.drift import LEAST_ROWS, ColumnDrift, chance_of, coarse, frequent, psi


def drift_between(
    live: Mapping[str, Any], reference: Mapping[str, Any], rows: tuple[int, int]
) -> list[ColumnDrift]:
    """Each column's summary against the reference's of the same kind, the largest index first.

    ``rows`` are the rows behind the two. Empty when either has fewer than ``LEAST_ROWS``.
    """
    if min(rows) < LEAST_ROWS:
        return []
    pairs: list[tuple[str, list[float], list[float]]] = []
    for name, known in reference.items():
        now = live.get(name)
        if not now or not known or now.get("kind") != known.get("kind"):
            continue
        pair = _numbers(now, known) if known["kind"] == "number" else _levels(now, known)
        if sum(pair[0]) >= LEAST_ROWS and sum(pair[1]) > 0:
            pairs.append((name, *pair))
    found = [
        ColumnDrift(name, psi(now, known), chance_of(len(now), sum(now), rows[1], len(pairs)))
        for name, now, known in pairs
    ]
    return sorted(found, key=lambda one: (-one.psi, one.name))


def _numbers(now: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Counts in about ten bins of the reference, and what the model does not see."""
    unseen = [float(one.get("missing", 0) + one.get("outside", 0)) for one in (now, known)]
    found, before = _same_bins(now["bins"], known["bins"])
    if len(known["bins"]["edges"]) < 2:  # two bins that say different things are not joined
        return [*found, unseen[0]], [*before, unseen[1]]
    starts = coarse(before)
    ends = [*starts[1:], len(before)]

    def joined(counts: Sequence[float]) -> list[float]:
        return [sum(counts[a:b]) for a, b in zip(starts, ends, strict=True)]

    return [*joined(found), unseen[0]], [*joined(before), unseen[1]]


def _same_bins(now: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Both counts over the same bins: the finer ones are spread evenly over the coarser."""
    here, there = list(map(float, now["counts"])), list(map(float, known["counts"]))
    edges, others = list(map(float, now["edges"])), list(map(float, known["edges"]))
    if edges == others:
        return here, there
    if len(others) == 1:  # one value: equal to it, or not; live it has a bin between two others
        value = others[0]
        same = here[edges.index(value)] if value in edges else 0.0
        return [same, sum(here) - same], [sum(there), 0.0]
    if len(edges) < 2 or not others:
        return [0.0, sum(here)], [sum(there), 0.0]
    if len(edges) <= len(others):
        return here, _spread(others, there, edges)
    return _spread(edges, here, others), there


def _spread(edges: Sequence[float], counts: Sequence[float], onto: Sequence[float]) -> list[float]:
    """Counts over other bins; the first and the last of them are open."""
    import numpy as np

    summed = np.concatenate([[0.0], np.cumsum(counts)])
    inner = np.interp(list(onto)[1:-1], list(edges), summed)
    return [float(n) for n in np.diff(np.concatenate([[0.0], inner, [summed[-1]]]))]


def _levels(now: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Counts of the frequent levels, of all others together, and of what is missing."""
    levels, total = known["levels"], float(known["count"])
    named = frequent(levels, total)
    before = [float(levels[level]) for level in named]
    found = [float(now["levels"].get(level, 0)) for level in named]
    rest = max(0.0, float(now["count"]) - sum(found))
    return (
        [*found, rest, float(now.get("missing", 0))],
        [*before, total - sum(before), float(known.get("missing", 0))],
    )
