"""What live requests and their answers look like, on the bins of the model's own profile.

Counted on the edges that the training data was profiled with, histograms of any two hours add up
exactly, and an index of their distance from the training data needs no request to be read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.histogram import edges_of, histogram, pooled
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

MOST_LEVELS = 200
_LARGEST = 3.4028234e38
_SCORE_EDGES = tuple(i / 20 for i in range(21))  # of probabilities


def live_profile(
    records: pl.DataFrame, reference: Mapping[str, Any] | None, spec: PipelineSpec
) -> dict[str, Any]:
    """``rows`` and ``features`` of live records, in the form of :mod:`ml_control.core.profile`.

    *records* has a Float64 column for each number and a String column for each category. The
    first and the last bin also count what lies beyond them. Levels that the reference does not
    name, or beyond its 200 most frequent, are counted as ``other``. Where the reference has one
    value alone there are three bins: below it, itself, above it. A column without reference has
    its range as its one bin.
    """
    known = (reference or {}).get("features", {})
    ranges = {f.name: (f.min, f.max) for f in spec.columns.features if f.type == "number"}
    if spec.source.format == "images":
        ranges = {"brightness": (None, None), "contrast": (None, None)}
    features: dict[str, Any] = {}
    for name in records.columns:
        if name in ranges:
            features[name] = number_summary(records[name], _edges(known.get(name)), *ranges[name])
        else:
            features[name] = category_summary(records[name], _levels(known.get(name)))
    return {"rows": records.height, "features": features}


def live_predictions(
    scores: pl.Series, labels: pl.Series, reference: Mapping[str, Any] | None, spec: PipelineSpec
) -> dict[str, Any]:
    """``score`` and, for classes, ``label`` of answers. Scores of classes are in bins of 0.05.

    A regression's scores are on the bins of the reference's predictions, else of its target.
    """
    found: dict[str, Any] = {}
    if spec.columns.task == "regression":
        known = ((reference or {}).get("prediction") or {}).get("score")
        edges = _edges(known or (reference or {}).get("target"))
    else:
        edges = list(_SCORE_EDGES)
        found["label"] = category_summary(labels, None)
    return {"score": number_summary(scores, edges), **found}


def reference_predictions(
    predictions: NDArray[np.floating[Any]], labels: Sequence[str], task: str
) -> dict[str, Any]:
    """What :func:`live_predictions` is compared with: a model's answers to its test rows.

    *predictions* are ``(rows,)`` or ``(rows, outputs)``, as the model gives them.
    """
    import numpy as np
    import polars as pl

    table = np.asarray(predictions, dtype=np.float64).reshape(len(predictions), -1)
    if task == "regression":
        values = table[:, 0]
        return {"score": number_summary(pl.Series(values), edges_of(np.sort(values)).tolist())}
    if task == "binary":
        scores, best = table[:, 0], (table[:, 0] >= 0.5).astype(np.int64)
    else:
        scores, best = table.max(axis=1), table.argmax(axis=1)
    named = pl.Series([labels[place] for place in best.tolist()], dtype=pl.String)
    return {
        "score": number_summary(pl.Series(scores), _SCORE_EDGES),
        "label": category_summary(named, None),
    }


def number_summary(
    series: pl.Series,
    edges: Sequence[float],
    low: float | None = None,
    high: float | None = None,
) -> dict[str, Any]:
    """A column of numbers on given edges; its own range where there are none."""
    import numpy as np
    import polars as pl

    values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    present = values[~np.isnan(values)]
    inside = np.abs(present) < _LARGEST
    inside &= present >= (-_LARGEST if low is None else low)
    inside &= present <= (_LARGEST if high is None else high)
    kept = present[inside]
    bins = np.asarray(edges, dtype=np.float64)
    if not len(bins) and len(kept):
        bins = np.unique([kept.min(), kept.max()])
    if len(bins) < 2:
        counts = np.array([float(len(kept))] if len(bins) else [])
    else:
        places = np.searchsorted(bins[1:-1], kept, side="right")
        counts = np.bincount(places, minlength=len(bins) - 1).astype(np.float64)
    return {
        "kind": "number",
        "count": len(kept),
        "missing": len(values) - len(present),
        "outside": len(present) - len(kept),
        "min": float(kept.min()) if len(kept) else None,
        "max": float(kept.max()) if len(kept) else None,
        "mean": float(kept.mean()) if len(kept) else None,
        **histogram(bins, counts),
    }


def category_summary(series: pl.Series, named: Sequence[str] | None) -> dict[str, Any]:
    """A column of categories: rows of the named levels, or of the most frequent ones."""
    import polars as pl

    table = series.cast(pl.String).alias("level").to_frame().group_by("level").len()
    counts = dict(zip(table["level"].to_list(), table["len"].to_list(), strict=True))
    missing = int(counts.pop(None, 0))
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    kept = [level for level in ranked if named is None or level in set(named)][:MOST_LEVELS]
    total = sum(counts.values())
    levels = {level: int(counts[level]) for level in kept}
    return {
        "kind": "category",
        "count": total,
        "missing": missing,
        "levels": levels,
        "other": total - sum(levels.values()),
        "distinct": len(counts),
    }


def merged(profiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Live profiles as one; exact where their edges are equal. Columns may come and go."""
    features: dict[str, list[Mapping[str, Any]]] = {}
    answers: dict[str, list[Mapping[str, Any]]] = {}
    for one in profiles:
        for name, summary in one["features"].items():
            features.setdefault(name, []).append(summary)
        for name, summary in one.get("prediction", {}).items():
            answers.setdefault(name, []).append(summary)
    return {
        "rows": sum(one["rows"] for one in profiles),
        "features": {name: _merged(parts) for name, parts in features.items()},
        "prediction": {name: _merged(parts) for name, parts in answers.items()},
    }


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One column's summaries as one; those of another kind than the last are of another time."""
    parts = [part for part in parts if part["kind"] == parts[-1]["kind"]]
    total = sum(part["count"] for part in parts)
    missing = sum(part["missing"] for part in parts)
    if parts[0]["kind"] == "category":
        return _merged_levels(parts, total, missing)
    filled = [part for part in parts if part["count"]]
    return {
        "kind": "number",
        "count": total,
        "missing": missing,
        "outside": sum(part["outside"] for part in parts),
        "min": min((part["min"] for part in filled), default=None),
        "max": max((part["max"] for part in filled), default=None),
        "mean": sum(p["mean"] * p["count"] for p in filled) / total if total else None,
        **_merged_bins([part["bins"] for part in filled or parts[:1]]),
    }


def _merged_levels(parts: Sequence[Mapping[str, Any]], total: int, missing: int) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for part in parts:
        for level, count in part["levels"].items():
            counts[level] = counts.get(level, 0) + count
    ranked = sorted(counts, key=lambda level: (-counts[level], level))[:MOST_LEVELS]
    levels = {level: counts[level] for level in ranked}
    return {
        "kind": "category",
        "count": total,
        "missing": missing,
        "levels": levels,
        "other": total - sum(levels.values()),
        "distinct": max(len(counts), *(part["distinct"] for part in parts)),
    }


def _merged_bins(bins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import numpy as np

    edges = bins[0]["edges"]
    if all(one["edges"] == edges for one in bins):
        counts = np.sum([one["counts"] for one in bins], axis=0, dtype=np.float64)
        return histogram(np.asarray(edges, dtype=np.float64), np.atleast_1d(counts))
    return pooled([one for one in bins if one["edges"]])


def _edges(summary: Mapping[str, Any] | None) -> list[float]:
    """The edges to count on; one value alone gets a bin of its own between all below and above."""
    import numpy as np

    if not summary or summary.get("kind") != "number":
        return []
    edges = [float(edge) for edge in summary["bins"]["edges"]]
    if len(edges) != 1:
        return edges
    value = edges[0]
    above = float(np.nextafter(value, np.inf))
    return [float(np.nextafter(value, -np.inf)), value, above, float(np.nextafter(above, np.inf))]


def _levels(summary: Mapping[str, Any] | None) -> list[str] | None:
    """The reference's most frequent levels."""
    if not summary or summary.get("kind") != "category":
        return None
    levels = summary["levels"]
    return sorted(levels, key=lambda level: (-levels[level], level))[:MOST_LEVELS]
