"""Golden records: spread over the dataset, the same every time, with missing values among them."""

from __future__ import annotations

import polars as pl
import pytest

from ml_control.core.features import FeatureSpec
from ml_control.services.models.golden import GAPS, GOLDEN_ROWS, GoldenRows


@pytest.fixture
def features():
    """One number and one category."""
    return FeatureSpec.model_validate(
        {
            "task": "regression",
            "features": [
                {"kind": "number", "name": "x"},
                {"kind": "category", "name": "c", "levels": ["a", "b"], "encoding": "onehot"},
            ],
        }
    )


def chosen(features, frame, *cuts):
    """The records of a frame that comes in blocks which end at these rows."""
    rows = GoldenRows(features)
    for start, end in zip((0, *cuts), (*cuts, frame.height), strict=True):
        rows.add(frame[start:end])
    return rows.records()


def frame(rows, gaps=()):
    """Rows by number; those in ``gaps`` have no category."""
    levels = [None if i in gaps else "ab"[i % 2] for i in range(rows)]
    return pl.DataFrame({"x": range(rows), "c": levels, "y": range(rows)})


def test_records_come_from_all_over_the_dataset(features):
    """Of ten blocks most give a record; the first rows are nothing special."""
    found = [record["x"] for record in chosen(features, frame(10_000), *range(1000, 10_000, 1000))]

    assert GOLDEN_ROWS == len(set(found))
    assert len({x // 1000 for x in found}) >= 7
    assert {"x", "c"} == set(chosen(features, frame(10))[0])


def test_records_do_not_depend_on_how_rows_come_in_files(features):
    """The same rows in other blocks give the same records, in the same order."""
    rows = frame(5_000, gaps=range(100, 140))

    assert chosen(features, rows) == chosen(features, rows, 7, 1300, 1301, 4999)


def test_rare_missing_values_are_among_them(features):
    """Two rows of ten thousand have a gap, and both are chosen; more than a few are not."""
    few = [r["c"] for r in chosen(features, frame(10_000, gaps=(4321, 8765)), 2000)]
    many = [r["c"] for r in chosen(features, frame(10_000, gaps=range(4000, 5000)), 2000)]

    assert (2, GOLDEN_ROWS) == (few.count(None), len(few))
    assert GAPS <= many.count(None) < GOLDEN_ROWS == len(many)


@pytest.mark.parametrize("rows", [0, 1, 3, 24, 25])
def test_small_datasets_give_what_they_have(features, rows):
    """Never a record twice, never more than there are rows, also when each has a gap."""
    for gaps in ((), range(rows)):
        found = [record["x"] for record in chosen(features, frame(rows, gaps))]

        assert min(rows, GOLDEN_ROWS) == len(found) == len(set(found))
