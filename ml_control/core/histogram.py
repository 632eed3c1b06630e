"""Histograms of a column of numbers: their edges, their quantiles, and many as one.

Bins are closed on the left; only the last one is closed on both sides. A column of one value has
one edge and one count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 32
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def edges_of(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of at most 32 bins of about equal counts of sorted values.

    A quantile that repeats is a value of many rows (zero, a cap, a code). It gets a bin of its
    own, which ends at the next larger float, so that histograms merge exactly there instead of
    spreading it over its neighbourhood.
    """
    import numpy as np

    if not len(ordered):
        return ordered
    found = quantiles_of(ordered, np.linspace(0, 1, BINS + 1))
    if found[0] == found[-1]:
        return found[:1]
    heavy = found[1:][found[1:] == found[:-1]]
    return np.unique(np.concatenate([found, np.nextafter(heavy, np.inf)]))


def quantiles_of(
    ordered: NDArray[np.float64], shares: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quantiles of at least one sorted value, interpolated between neighbours."""
    import numpy as np

    places = np.asarray(shares) * (len(ordered) - 1)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    found: NDArray[np.float64] = ordered[below] + (ordered[above] - ordered[below]) * (
        places - below
    )
    return found


def counts_in(ordered: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of the sorted values are in each bin."""
    import numpy as np

    if len(edges) < 2:  # one value, or none: a bin of no width
        return np.array([float(len(ordered))] if len(edges) else [])
    places = np.searchsorted(ordered, edges, side="left")
    places[-1] = np.searchsorted(ordered, edges[-1], side="right")
    return np.diff(places).astype(np.float64)


def histogram(edges: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, Any]:
    """``bins{edges, counts}`` and the ``quantiles`` read from them, as plain data."""
    import numpy as np

    quantiles: dict[str, float] = {}
    if len(edges):
        cumulative = np.concatenate([[0.0], np.cumsum(counts)])[: len(edges)]
        share = cumulative / max(float(counts.sum()), 1.0)
        shown = edges.copy()
        alone = _ends_heavy(edges)
        shown[alone] = edges[alone - 1]
        found = _between(QUANTILES, share, shown)
        quantiles = {str(q): float(value) for q, value in zip(QUANTILES, found, strict=True)}
    return {
        "quantiles": quantiles,
        "bins": {
            "edges": [float(edge) for edge in edges],
            "counts": [round(float(count), 6) for count in counts],
        },
    }


def pooled(bins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The histogram of all together, again in about 32 bins of equal counts, as plain data."""
    import numpy as np

    parts = [(np.asarray(one["edges"], dtype=np.float64), one["counts"]) for one in bins]
    if not parts:
        return histogram(np.array([]), np.array([]))
    if len({float(edge) for edges, _ in parts for edge in (edges[0], edges[-1])}) == 1:
        return histogram(parts[0][0], np.array([float(sum(c[0] for _, c in parts))]))
    # A value that was alone somewhere is a heavy value among the others.
    parts = [
        (np.append(own, np.nextafter(own, np.inf)) if len(own) == 1 else own, counts)
        for own, counts in parts
    ]
    edges = np.unique(np.concatenate([own for own, _ in parts]))
    cumulative = np.zeros(len(edges))
    for own, counts in parts:
        cumulative += _between(edges, own, np.concatenate([[0.0], np.cumsum(counts)]))
    if len(edges) > BINS + 1:
        wanted = np.linspace(0, cumulative[-1], BINS + 1)[1:-1]
        inner = np.searchsorted(cumulative, wanted)
        kept = np.unique(np.concatenate([[0], inner, [len(edges) - 1]]))
        heavy = np.intersect1d(kept, _ends_heavy(edges))
        kept = np.union1d(kept, heavy - 1)
        edges, cumulative = edges[kept], cumulative[kept]
    return histogram(edges, np.diff(cumulative))


def _between(
    wanted: Sequence[float] | NDArray[np.float64],
    places: NDArray[np.float64],
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What lies at ``wanted`` on the line through the points; flat beyond its ends.

    Not ``np.interp``: its slope overflows between places that are only a subnormal float apart.
    """
    import numpy as np

    asked = np.clip(np.asarray(wanted, dtype=np.float64), places[0], places[-1])
    if len(places) == 1:
        return np.full(len(asked), values[0])
    left = np.clip(np.searchsorted(places, asked, side="right") - 1, 0, len(places) - 2)
    width = places[left + 1] - places[left]
    share = np.where(width > 0, (asked - places[left]) / np.where(width > 0, width, 1.0), 1.0)
    found: NDArray[np.float64] = values[left] * (1 - share) + values[left + 1] * share
    return found


def _ends_heavy(edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the edges that end the bin of a single value."""
    import numpy as np

    return np.flatnonzero(edges[1:] == np.nextafter(edges[:-1], np.inf)) + 1
