"""Parquet in blocks: types by rule, nulls, and refusals that name row and column."""

import contextlib
import io
from datetime import date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.parquet import ParquetReader
from ml_control.core.tabular import read_csv
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

SPEC = PipelineSpec.model_validate(
    {
        "name": "shop",
        "source": {"format": "parquet", "partition": {"start": "2026-01-01"}},
        "columns": {
            "target": "bought",
            "task": "binary",
            "positive": "yes",
            "features": [
                {"name": "age", "type": "number"},
                {"name": "city", "type": "category"},
            ],
            "ignore": ["id"],
        },
    }
)


@pytest.fixture
def read(tmp_path):
    """The table of a frame or of bytes, read in blocks of a few rows."""

    def reading(content, rows=2):
        path = tmp_path / "x.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pl.DataFrame(content).write_parquet(path, row_group_size=3)
        return pl.concat(ParquetReader(path, "x.parquet", SPEC, rows=rows).blocks())

    return reading


def test_columns_come_by_name_in_the_declared_order(read):
    """Order in the file does not matter, ignored columns are dropped, names are trimmed."""
    frame = read({"bought": ["yes"], "id": [7], " city": ["Rome"], "age": [31]})

    assert ["age", "city", "bought"] == frame.columns
    assert [(31.0, "Rome", "yes")] == frame.rows()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series([1, 2], dtype=pl.UInt8), [1.0, 2.0]),
        (pl.Series([1.5, float("nan")], dtype=pl.Float32), [1.5, None]),
        ([Decimal("1.25"), None], [1.25, None]),
        ([True, False], [1.0, 0.0]),
        ([None, None], [None, None]),
    ],
)
def test_numbers_come_from_any_numeric_column(read, values, expected):
    """Integers, floats, decimals and booleans are numbers; NaN and null are missing."""
    frame = read({"age": values, "city": ["a", "b"], "bought": ["yes", "no"]})

    assert pl.Float64 == frame["age"].dtype
    assert expected == frame["age"].to_list()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([" Rome ", "NA"], ["Rome", None]),
        (pl.Series(["a", None], dtype=pl.Categorical), ["a", None]),
        (pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])), ["a", "b"]),
        ([7, -1], ["7", "-1"]),
        ([True, None], ["true", None]),
        ([date(2026, 1, 31), None], ["2026-01-31", None]),
        ([datetime.fromisoformat("2026-01-31T12:00"), None], ["2026-01-31 12:00:00.000000", None]),
        ([None, None], [None, None]),
    ],
)
def test_categories_come_from_what_has_one_text(read, values, expected):
    """Texts, categoricals, integers, booleans, dates and times are categories."""
    frame = read({"age": [1, 2], "city": values, "bought": ["yes", "no"]})

    assert pl.String == frame["city"].dtype
    assert expected == frame["city"].to_list()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, allow_infinity=False) | st.none(),
            st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=4)
            | st.none(),
        ),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 4),
)
def test_parquet_and_csv_give_one_table(tmp_path_factory, rows, block):
    """The same values read alike from both formats, in blocks of any size."""
    table = pl.DataFrame(rows, {"age": pl.Float64, "city": pl.String}, orient="row")
    table = table.with_columns(pl.lit("yes").alias("bought"))
    path = tmp_path_factory.mktemp("table") / "x.parquet"
    table.write_parquet(path, row_group_size=2)
    buffer = io.BytesIO()
    table.write_csv(buffer, quote_style="non_numeric")

    read = pl.concat(ParquetReader(path, "x", SPEC, rows=block).blocks())

    assert read_csv(buffer.getvalue(), SPEC, "x").equals(read)


def whole() -> bytes:
    buffer = io.BytesIO()
    frame = pl.DataFrame({"age": range(500), "city": ["a"] * 500, "bought": ["yes"] * 500})
    frame.write_parquet(buffer, row_group_size=100)
    return buffer.getvalue()


def test_every_cut_and_much_damage_is_a_typed_refusal(read):
    """A file cut anywhere is refused; changed bytes give a table or BadObject, nothing else."""
    data = whole()
    for cut in range(0, len(data), 197):
        with pytest.raises(BadObject):
            read(data[:cut], rows=200)
    for place in range(4, len(data) - 4, 127):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        with contextlib.suppress(BadObject):
            read(bytes(damaged), rows=200)
