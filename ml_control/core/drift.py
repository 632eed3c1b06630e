"""How far a partition's values are from those that a model was trained on.

The population stability index of a column over bins i, with the share p of the partition's rows
and q of the reference's rows in each (Siddiqi, *Credit Risk Scorecards*, 2006)::

    PSI = sum_i (p_i - q_i) * ln(p_i / q_i)

It is the symmetrised Kullback-Leibler divergence; by custom below 0.1 is stable and above 0.2 to
0.25 has shifted. Without any shift it is not zero but about (1/n + 1/N) times a chi-squared
variable of B - 1 degrees of freedom, for n and N rows and B bins (Yurdakul, *Statistical
Properties of Population Stability Index*, 2018): ten bins of 50 rows exceed 0.2 half of the time
by chance. So a column counts as drifted only when its PSI is above the wanted bound *and* above
what chance gives in one of a thousand partitions without drift, over all columns together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

#: A partition or reference with fewer rows is not judged: shares of so few say nothing.
LEAST_ROWS = 50
_BIN_SHARE = 0.1  # ten bins, as is the custom
_LEVEL_SHARE = 0.01  # rarer levels are compared together, with the unseen ones
_LEVEL_ROWS = 30  # or rarer: picked for their share, few rows would seem to have lost some of it
_MOST_LEVELS = 20
_FLOOR = 1e-4  # an empty bin counts as this share, or half a row if that is more
_FALSE_ALARMS = 0.001


@dataclass(frozen=True)
class ColumnDrift:
    """One column's index, and the index that chance alone stays below."""

    name: str
    psi: float
    chance: float

    def beyond(self, bound: float) -> bool:
        """Whether the column has drifted by more than *bound* and by more than chance."""
        return self.psi > max(bound, self.chance)


def drift(
    frame: pl.DataFrame, reference: Mapping[str, Any], spec: PipelineSpec
) -> list[ColumnDrift]:
    """Each feature and the target against a profile, the largest index first.

    *frame* has a partition's rows, or a uniform sample of them. A column that the reference does
    not have in the same kind is left out. Empty when either has fewer than ``LEAST_ROWS`` rows.
    """
    rows, known = frame.height, int(reference.get("rows", 0))
    if min(rows, known) < LEAST_ROWS:
        return []
    target = spec.columns.target
    summaries = {**reference.get("features", {}), target: reference.get("target") or {}}
    ranges = {f.name: (f.min, f.max) for f in spec.columns.features}
    compared = []
    for name, summary in summaries.items():
        if name not in frame.columns or not summary:
            continue
        series = frame[name]
        if summary["kind"] == "number" and series.dtype.is_numeric():
            pair = _numbers(series, summary, *ranges.get(name, (None, None)))
        elif summary["kind"] == "category" and not series.dtype.is_float():
            pair = _categories(series, summary)
        else:
            continue
        compared.append((name, *pair))
    found = [
        ColumnDrift(
            name=name,
            psi=psi(now, before),
            chance=chance_of(len(now), rows, known, len(compared)),
        )
        for name, now, before in compared
    ]
    return sorted(found, key=lambda one: (-one.psi, one.name))


def psi(now: Sequence[float] | NDArray[np.float64], before: Sequence[float]) -> float:
    """The index of two lists of counts over the same bins; 0 when either is empty."""
    total, known = float(sum(now)), float(sum(before))
    if not total or not known:
        return 0.0
    # Half a row rather than none: the logarithm of nothing would be beyond all bounds.
    least, floor = max(_FLOOR, 0.5 / total), max(_FLOOR, 0.5 / known)
    index = 0.0
    for count, reference in zip(now, before, strict=True):
        if count or reference:
            p, q = max(count / total, least), max(reference / known, floor)
            index += (p - q) * math.log(p / q)
    return index


def chance_of(bins: int, rows: float, known: float, columns: int) -> float:
    """What one column's index stays below without drift, so that all of them together do."""
    freedom = max(1, bins - 1)
    quantile = NormalDist().inv_cdf(1 - _FALSE_ALARMS / max(1, columns))
    # Wilson and Hilferty's cube, close enough here to the chi-squared quantile.
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + quantile * math.sqrt(spread)) ** 3 * (1 / rows + 1 / known)


def _numbers(
    series: pl.Series, summary: Mapping[str, Any], low: float | None, high: float | None
) -> tuple[list[float], list[float]]:
    """Counts in the reference's bins, about ten of them, and what the model does not see."""
    import numpy as np
    import polars as pl

    values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    inside = ~np.isnan(values) & (np.abs(values) < 3.4028234e38)
    if low is not None:
        inside &= values >= low
    if high is not None:
        inside &= values <= high
    unseen = (float((~inside).sum()), float(summary["missing"] + summary["outside"]))
    edges = np.asarray(summary["bins"]["edges"], dtype=np.float64)
    before = np.asarray(summary["bins"]["counts"], dtype=np.float64)
    kept = values[inside]
    if len(edges) == 1:  # one value: equal to it, or not
        same = float((kept == edges[0]).sum())
        return [same, len(kept) - same, unseen[0]], [float(before.sum()), 0.0, unseen[1]]
    if not len(edges):
        return [float(len(kept)), unseen[0]], [0.0, unseen[1]]
    # The first and the last bin are open: beyond all that was known is in them.
    places = np.searchsorted(edges[1:-1], kept, side="right")
    now = np.bincount(places, minlength=len(before)).astype(np.float64)
    starts = coarse(before)
    return (
        [*map(float, np.add.reduceat(now, starts)), unseen[0]],
        [*map(float, np.add.reduceat(before, starts)), unseen[1]],
    )


def coarse(counts: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """Where bins begin when neighbours are joined until each has about a tenth of the rows."""
    enough = _BIN_SHARE * float(sum(counts))
    starts, held = [0], 0.0
    for place, count in enumerate(counts):
        # A heavy value stays apart from the tail that comes before it.
        if place and (held >= 0.999 * enough or (count >= enough and held >= 0.2 * enough)):
            starts.append(place)
            held = 0.0
        held += float(count)
    if len(starts) > 1 and held < 0.2 * enough:
        starts.pop()
    return starts


def _categories(series: pl.Series, summary: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Counts of the frequent levels, of all others together, and of what is missing."""
    import polars as pl

    levels, total = summary["levels"], summary["count"]
    named = frequent(levels, total)
    counts = series.cast(pl.String).alias("level").to_frame().group_by("level").len()
    now = dict(zip(counts["level"].to_list(), counts["len"].to_list(), strict=True))
    missing = float(now.pop(None, 0))
    found, before = [float(now.get(level, 0)) for level in named], [float(levels[x]) for x in named]
    found += [sum(now.values()) - sum(found), missing]
    return found, [*before, total - sum(before), float(summary["missing"])]


def frequent(levels: Mapping[str, float], total: float) -> list[str]:
    """The levels that are compared on their own, the most frequent first."""
    named = sorted(levels, key=lambda level: (-levels[level], level))[:_MOST_LEVELS]
    least = max(_LEVEL_ROWS, _LEVEL_SHARE * total)
    return [level for level in named if levels[level] >= least]
