"""What the values of a table look like, small enough to keep in a manifest.

Profiles of partitions are merged without reading the data again. Counts, minima, maxima and
means merge exactly; the histogram of numbers merges by interpolating inside bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ml_control.core.histogram import (
    QUANTILES,
    counts_in,
    edges_of,
    histogram,
    pooled,
    quantiles_of,
)
from ml_control.core.sampling import Levels, RowSample
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

MAX_LEVELS = 1000
_LARGEST = 3.4028234e38  # the model's float32 ends here
_SAMPLE_ROWS = 131_072  # a quantile's rank is then within 0.3 % of the rows
_SAMPLE_CELLS = 16_000_000
_SAMPLE_LEAST = 10_000
_LEVELS_COUNTED = 65_536  # of each category, before the rare ones lose their names


class Profiler:
    """The profile of a table that comes in blocks; see :func:`profile`.

    Everything is exact, and that of the whole table however its blocks are cut, up to 131,072
    rows (fewer for more than 122 columns of numbers). Beyond, quantiles and the edges of bins
    come from a sample of so many rows, and bins are scaled to the exact counts. Levels of a
    category are exact up to 65,536 different ones. Memory does not grow with the rows.
    """

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        columns = spec.columns
        self._ranges: dict[str, tuple[float, float]] = {}
        if spec.source.format == "images":
            self._ranges = dict.fromkeys(("brightness", "contrast"), (-_LARGEST, _LARGEST))
        for feature in columns.features:
            if feature.type == "number":
                low = -_LARGEST if feature.min is None else max(feature.min, -_LARGEST)
                high = _LARGEST if feature.max is None else min(feature.max, _LARGEST)
                self._ranges[feature.name] = (low, high)
        texts = [feature.name for feature in columns.features if feature.type == "category"]
        if columns.task == "regression":
            self._ranges[columns.target] = (-_LARGEST, _LARGEST)
        else:
            texts.append(columns.target)
        self._levels = {name: Levels(_LEVELS_COUNTED) for name in texts}
        self._totals = {name: _Totals() for name in self._ranges}
        most = min(_SAMPLE_ROWS, _SAMPLE_CELLS // max(1, len(self._ranges)))
        self._sample = RowSample(max(_SAMPLE_LEAST, most))

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next block of rows."""
        if self._spec.source.format == "images":
            frame = frame.with_columns(**_pixel_statistics(frame))
        numbers = _floats(frame, list(self._ranges))
        self._sample.add(numbers)
        _take(numbers, self._ranges, self._totals)
        for name, levels in self._levels.items():
            levels.add(frame[name])

    def result(self) -> dict[str, Any]:
        """The profile of all rows taken so far. Needs at least one block."""
        columns = self._spec.columns
        sample = self._sample.frame()
        found = {name: self._number(name, sample[name]) for name in self._ranges}
        found |= {name: _category(levels) for name, levels in self._levels.items()}
        target = found.pop(columns.target)
        # In the pipeline file's order, as readers show them.
        order = [feature.name for feature in columns.features] or list(found)
        return {
            "rows": self._sample.seen,
            "features": {name: found[name] for name in order},
            "target": target,
        }

    def _number(self, name: str, series: pl.Series) -> dict[str, Any]:
        import numpy as np

        low, high = self._ranges[name]
        values = series.fill_null(float("nan")).to_numpy()
        inside = np.sort(values[(values >= low) & (values <= high)])  # never NaN
        totals, edges = self._totals[name], edges_of(inside)
        if self._sample.whole:  # one sum over all rows, whatever the blocks were
            totals = replace(totals, sums=[float(inside.sum())])
        if not self._sample.whole and totals.least is not None and totals.most is not None:
            ends = [totals.least, totals.most]
            if len(edges) < 2:  # too rare to be in the sample, or one value there
                edges = np.unique([*ends, *edges, *np.nextafter(edges, np.inf)])
            edges[0], edges[-1] = min(edges[0], ends[0]), max(edges[-1], ends[1])
        counts = counts_in(inside, edges)
        if not self._sample.whole and len(counts):
            counts = counts if counts.any() else np.ones(len(counts))
            counts *= totals.count / counts.sum()
        found = quantiles_of(inside, QUANTILES) if len(inside) else ()
        return {
            "kind": "number",
            **totals.to_json(),
            **histogram(edges, counts),
            # Read from the values here; a merged profile reads them from the histogram.
            "quantiles": {str(q): float(value) for q, value in zip(QUANTILES, found, strict=False)},
        }


def profile(frame: pl.DataFrame, spec: PipelineSpec) -> dict[str, Any]:
    """A JSON-able summary of a typed table: rows, features and target.

    number: ``count missing outside min max mean quantiles bins{edges, counts}``, over the
    values that the model sees (``outside`` counts those beyond the declared range); a
    column of one value has one edge and one count. A value that fills a bin alone has a bin of
    its own, which ends at the next larger float.
    category: ``count missing levels{level: rows} other distinct``, at most 1000 levels.
    Images: ``brightness`` and ``contrast`` of the pixels as numbers, from the columns of these
    names or from ``pixels`` (Binary, or lists or arrays of uint8).
    """
    profiler = Profiler(spec)
    profiler.add(frame)
    return profiler.result()


@dataclass
class _Totals:
    """What is counted of a column of numbers without keeping it."""

    count: int = 0
    missing: int = 0
    outside: int = 0
    least: float | None = None
    most: float | None = None
    sums: list[float] = field(default_factory=list)

    def take(self, count: int, least: float, most: float, total: float) -> None:
        """Add a block's values inside the range; there is at least one."""
        self.count += count
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)
        self.sums.append(total)

    def to_json(self) -> dict[str, Any]:
        """The part of the summary that is always exact."""
        return {
            "count": self.count,
            "missing": self.missing,
            "outside": self.outside,
            "min": self.least,
            "max": self.most,
            "mean": math.fsum(self.sums) / self.count if self.count else None,
        }


def _floats(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    import polars as pl

    return frame.select(pl.col(names).cast(pl.Float64)) if names else frame.select([])


def _take(
    frame: pl.DataFrame,
    ranges: Mapping[str, tuple[float, float]],
    totals: Mapping[str, _Totals],
) -> None:
    """Add a block's counts, extremes and sums: all columns at once, on all cores."""
    import polars as pl

    if not ranges or not frame.height:
        return
    every = pl.all()
    nulls, nans, least, most = (
        frame.select(one).row(0, named=True)
        for one in (every.null_count(), every.is_nan().sum(), every.min(), every.max())
    )
    clean = [
        name
        for name, (low, high) in ranges.items()
        if least[name] is not None and not nans[name] and low <= least[name] <= most[name] <= high
    ]
    sums = frame.select(pl.col(clean).sum()).row(0, named=True) if clean else {}
    for name, (low, high) in ranges.items():
        own, missing = totals[name], nulls[name] + (nans[name] or 0)
        if name in sums:
            found = (frame.height - missing, least[name], most[name], sums[name])
        else:  # something is missing or outside: look at the rest alone
            kept = frame[name].filter(frame[name].is_between(low, high))
            found = (len(kept), kept.min(), kept.max(), kept.sum())
        own.missing += missing
        own.outside += frame.height - missing - found[0]
        if found[0]:
            own.take(*found)


def merge(profiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The profile of all tables together. Raises ``BadObject`` for none or different columns."""
    if not profiles:
        raise BadObject("profiles", "there is none to merge", "publish a partition first")
    names = list(profiles[0]["features"])
    for other in profiles[1:]:
        if different := set(names) ^ set(other["features"]):
            raise BadObject(
                "profiles",
                f"partitions differ in the columns {', '.join(sorted(different))}",
                "process the older partitions again",
            )
    return {
        "rows": sum(item["rows"] for item in profiles),
        "features": {
            name: _merged([item["features"][name] for item in profiles]) for name in names
        },
        "target": _merged([item["target"] for item in profiles]),
    }


def _pixel_statistics(frame: pl.DataFrame) -> dict[str, pl.Series]:
    import numpy as np
    import polars as pl

    if {"brightness", "contrast"} <= set(frame.columns):
        return {name: frame[name] for name in ("brightness", "contrast")}
    images = [
        np.frombuffer(samples, dtype=np.uint8) if isinstance(samples, bytes) else np.array(samples)
        for samples in frame["pixels"].to_list()
    ]
    return {
        "brightness": pl.Series([float(i.mean()) for i in images], dtype=pl.Float64),
        "contrast": pl.Series([float(i.std()) for i in images], dtype=pl.Float64),
    }


def _category(levels: Levels) -> dict[str, Any]:
    found = _levels(levels.counts(), missing=levels.missing, other=levels.other)
    return {**found, "distinct": levels.distinct}


def _levels(counts: Mapping[str, int], *, missing: int, other: int) -> dict[str, Any]:
    """A category summary; beyond the most frequent 1000 levels only the rows are counted."""
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    kept, dropped = ranked[:MAX_LEVELS], ranked[MAX_LEVELS:]
    return {
        "kind": "category",
        "count": sum(counts.values()) + other,
        "missing": missing,
        "levels": {level: int(counts[level]) for level in kept},
        "other": other + sum(counts[level] for level in dropped),
        "distinct": len(counts),
    }


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One column's summaries as one."""
    missing = sum(part["missing"] for part in parts)
    if parts[0]["kind"] == "category":
        counts: dict[str, int] = {}
        for part in parts:
            for level, count in part["levels"].items():
                counts[level] = counts.get(level, 0) + count
        merged = _levels(counts, missing=missing, other=sum(part["other"] for part in parts))
        # Levels beyond a part's cap have no name here, so the largest count stands.
        merged["distinct"] = max(merged["distinct"], *(part["distinct"] for part in parts))
        return merged
    filled = [part for part in parts if part["count"]]
    total = sum(part["count"] for part in filled)
    return {
        "kind": "number",
        "count": total,
        "missing": missing,
        "outside": sum(part["outside"] for part in parts),
        "min": min((part["min"] for part in filled), default=None),
        "max": max((part["max"] for part in filled), default=None),
        "mean": sum(p["mean"] * p["count"] for p in filled) / total if total else None,
        **pooled([part["bins"] for part in filled]),
    }
