"""What the values of a table look like, small enough to keep in a manifest.

Profiles of partitions are merged without reading the data again. Counts, minima, maxima and
means merge exactly; the histogram of numbers merges by interpolating inside bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

MAX_LEVELS = 1000
_BINS = 32
_LARGEST = 3.4028234e38  # the model's float32 ends here
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Profiler:
    """The profile of a table that comes in blocks; see :func:`profile`."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._blocks: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next block of rows."""
        self._blocks.append(frame)

    def result(self) -> dict[str, Any]:
        """The profile of all rows taken so far. Needs at least one block."""
        import polars as pl

        return profile(pl.concat(self._blocks), self._spec)


def profile(frame: pl.DataFrame, spec: PipelineSpec) -> dict[str, Any]:
    """A JSON-able summary of a typed table: rows, features and target.

    number: ``count missing outside min max mean quantiles bins{edges, counts}``, over the
    values that the model sees (``outside`` counts those beyond the declared range); a
    column of one value has one edge and one count.
    category: ``count missing levels{level: rows} other distinct``, at most 1000 levels.
    Images: ``brightness`` and ``contrast`` of the pixels as numbers, from the columns of these
    names or from ``pixels`` (Binary, or lists or arrays of uint8).
    """
    columns = spec.columns
    features: dict[str, Any] = {}
    if spec.source.format == "images":
        for name, series in _pixel_statistics(frame).items():
            features[name] = _number(series)
    for feature in columns.features:
        if feature.type == "number":
            features[feature.name] = _number(frame[feature.name], feature.min, feature.max)
        else:
            features[feature.name] = _category(frame[feature.name])
    target = frame[columns.target]
    return {
        "rows": frame.height,
        "features": features,
        "target": _number(target) if columns.task == "regression" else _category(target),
    }


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


def _number(
    series: pl.Series, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    import numpy as np
    import polars as pl

    values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    present = values[~np.isnan(values)]
    inside = present[np.abs(present) <= _LARGEST]
    if low is not None:
        inside = inside[inside >= low]
    if high is not None:
        inside = inside[inside <= high]
    edges = np.unique(np.quantile(inside, np.linspace(0, 1, _BINS + 1))) if len(inside) else inside
    return {
        "kind": "number",
        "count": len(inside),
        "missing": len(values) - len(present),
        "outside": len(present) - len(inside),
        "min": float(inside.min()) if len(inside) else None,
        "max": float(inside.max()) if len(inside) else None,
        "mean": float(inside.mean()) if len(inside) else None,
        **_histogram(edges, _counts(inside, edges)),
        # Exact here; a merged profile reads its quantiles from the histogram.
        "quantiles": {str(q): float(np.quantile(inside, q)) for q in _QUANTILES if len(inside)},
    }


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    if len(edges) < 2:  # one value, or none: a bin of no width
        return np.array([float(len(values))] if len(edges) else [])
    return np.histogram(values, bins=edges)[0].astype(np.float64)


def _histogram(edges: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, Any]:
    """Bins and the quantiles read from them."""
    import numpy as np

    quantiles: dict[str, float] = {}
    if len(edges):
        cumulative = np.concatenate([[0.0], np.cumsum(counts)])[: len(edges)]
        share = cumulative / max(float(counts.sum()), 1.0)
        quantiles = {str(q): float(np.interp(q, share, edges)) for q in _QUANTILES}
    return {
        "quantiles": quantiles,
        "bins": {
            "edges": [float(edge) for edge in edges],
            "counts": [round(float(count), 6) for count in counts],
        },
    }


def _category(series: pl.Series) -> dict[str, Any]:
    import polars as pl

    texts = series.cast(pl.String)
    counts = texts.drop_nulls().value_counts()
    return _levels(
        dict(zip(counts[counts.columns[0]].to_list(), counts["count"].to_list(), strict=True)),
        missing=texts.null_count(),
        other=0,
    )


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
        **_merged_histogram([part["bins"] for part in filled]),
    }


def _merged_histogram(bins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pooled histogram, again cut into at most 32 bins of about equal counts."""
    import numpy as np

    if not bins:
        return _histogram(np.array([]), np.array([]))
    edges = np.unique(np.concatenate([item["edges"] for item in bins]))
    cumulative = np.zeros(len(edges))
    start = 0.0
    for item in bins:
        own = np.asarray(item["edges"])
        if len(own) == 1:  # all rows at one value, which is their bin's upper edge
            cumulative += np.where(edges >= own[0], item["counts"][0], 0.0)
            start += item["counts"][0] if own[0] == edges[0] else 0.0
        else:
            steps = np.concatenate([[0.0], np.cumsum(item["counts"])])
            cumulative += np.interp(edges, own, steps)
    if len(edges) == 1:
        return _histogram(edges, cumulative)
    # Rows at the lowest value have no bin below it and belong to the first bin.
    cumulative[0] -= start
    if len(edges) > _BINS + 1:
        wanted = np.linspace(0, cumulative[-1], _BINS + 1)[1:-1]
        inner = np.searchsorted(cumulative, wanted)
        kept = np.unique(np.concatenate([[0], inner, [len(edges) - 1]]))
        edges, cumulative = edges[kept], cumulative[kept]
    return _histogram(edges, np.diff(cumulative))
