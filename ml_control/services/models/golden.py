"""Golden records: training rows from all over the dataset, and made ones at its edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_control.core.sampling import RowSample

if TYPE_CHECKING:
    import polars as pl

    from ml_control.core.features import FeatureSpec

GOLDEN_ROWS = 24
GAPS = 6  # of these, so many at most are chosen among rows with a missing value


class GoldenRows:
    """Real records for the golden file, chosen by a hash of their place among the training rows.

    The same dataset always gives the same records, and each of its rows is as likely as another,
    whichever file it is in: the first rows of the first file may all take one path through a tree.
    Where some rows have a missing value, a few of those are among them, for a missing value takes a
    branch of its own.
    """

    def __init__(self, features: FeatureSpec) -> None:
        self._names = [feature.name for feature in features.features]
        self._any, self._gaps = RowSample(GOLDEN_ROWS), RowSample(GAPS)

    def add(self, rows: pl.DataFrame) -> None:
        """See the next training rows, in the dataset's order."""
        import polars as pl

        part = rows.select(self._names)
        self._any.add(part)
        self._gaps.add(part.filter(pl.any_horizontal(pl.all().is_null())))

    def records(self) -> list[dict[str, Any]]:
        """The chosen records, no more than ``GOLDEN_ROWS``."""
        gaps, found = self._gaps.frame().to_dicts(), self._any.frame().to_dicts()
        gaps = [record for record in gaps if record not in found]
        room = min(len(found), GOLDEN_ROWS - len(gaps))
        return [*(found[len(found) * i // room] for i in range(room)), *gaps]


def synthetic(features: FeatureSpec) -> list[dict[str, Any]]:
    """Records at the edges: everything missing, unseen categories, extremes on both sides."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    unseen: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    for feature in features.features:
        if feature.kind == "image":
            size = feature.height * feature.width * (1 if feature.mode == "grey" else 3)
            low[feature.name], high[feature.name] = [0] * size, [255] * size
            unseen[feature.name] = [(7 * i) % 256 for i in range(size)]
            missing[feature.name] = [128] * size
        elif feature.kind == "number":
            least = feature.min if feature.min is not None else -1e6
            most = feature.max if feature.max is not None else 1e6
            low[feature.name], high[feature.name] = least, most
            unseen[feature.name], missing[feature.name] = most + 1.0, None
        else:
            first = feature.levels[0] if feature.levels else None
            last = feature.levels[-1] if feature.levels else None
            low[feature.name], high[feature.name] = first, last
            unseen[feature.name], missing[feature.name] = "\u0000 never seen", None
    return [low, high, unseen, missing]


def golden_document(
    records: list[dict[str, Any]], features: FeatureSpec, predictions: list[list[float]]
) -> Mapping[str, Any]:
    """What ``golden.json`` holds: raw records, their rows, and the trainer's own answers."""
    from ml_control.core.features import csv_row

    return {
        "format": 1,
        "columns": list(features.columns),
        "records": records,
        "rows": [csv_row(features.encode_record(record)) for record in records],
        "predictions": predictions,
    }
