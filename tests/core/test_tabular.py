"""CSV and JSON into one typed table."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.tabular import read_cells, read_csv, records_to_frame
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec


def spec(task: str = "binary", **columns) -> PipelineSpec:
    positive = {"positive": "yes"} if task == "binary" else {}
    return PipelineSpec.model_validate(
        {
            "name": "shop",
            "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
            "columns": {
                "target": "bought",
                "task": task,
                "features": [
                    {"name": "age", "type": "number"},
                    {"name": "city", "type": "category"},
                ],
                "ignore": ["customer_id"],
                **positive,
                **columns,
            },
        }
    )


def rows(data: str | bytes, **options) -> list[tuple]:
    raw = data.encode() if isinstance(data, str) else data
    return read_csv(raw, options.pop("spec", spec()), "x.csv", **options).rows()


def test_columns_come_by_name_in_the_declared_order():
    """Header order does not matter, ignored columns are dropped, the target comes last."""
    frame = read_csv(b"bought,customer_id,city,age\nyes,7,Rome,31\n", spec(), "x.csv")

    assert ["age", "city", "bought"] == frame.columns
    assert [(31.0, "Rome", "yes")] == frame.rows()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_endings_blank_lines_and_bom(ending: str, last: bool):
    """A byte-order mark, any line ending, blank lines and a missing last one change nothing."""
    lines = ["\ufeffage,city,bought", "", "1,a,yes", "", "2,b,no"]
    text = ending.join(lines) + (ending if last else "")

    assert [(1.0, "a", "yes"), (2.0, "b", "no")] == rows(text)
    assert rows(text) == rows(text.replace("a,yes", '"a",yes'))


def test_quoted_commas_and_line_breaks():
    """Quoted cells may contain commas, line breaks and doubled quotes."""
    text = 'age,city,bought\n1,"a, b",yes\n2,"c\nd",no\n3,"say ""x""",no\n'

    assert ["a, b", "c\nd", 'say "x"'] == [row[1] for row in rows(text)]


def test_missing_texts_become_null_after_trimming():
    """The declared missing texts, trimmed, are null for both types; nothing else is."""
    text = "age,city,bought\n ? ,NA,yes\n,  ,no\n5,none,no\n"

    assert [(None, None, "yes"), (None, None, "no"), (5.0, "none", "no")] == rows(text)


def test_regression_target_is_a_number():
    """For regression the target is Float64."""
    text = "age,city,bought\n1,a,1e3\n"

    assert [(1.0, "a", 1000.0)] == rows(text, spec=spec("regression"))


def test_target_may_be_absent_when_predicting():
    """Without require_target the file may lack the target, or have gaps in it."""
    assert [(1.0, "a")] == rows("age,city\n1,a\n", require_target=False)
    assert [(1.0, "a", None)] == rows("age,city,bought\n1,a,\n", require_target=False)


def test_leading_zeros_and_numbers_stay_texts_in_categories():
    """A category is its text: 007 and 7 differ."""
    assert ["007", "7"] == [row[1] for row in rows("age,city,bought\n1,007,yes\n1,7,no\n")]


CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cc"]), max_size=6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.booleans())
def test_any_written_csv_reads_back(table: list[tuple[str, str]], quote: bool):
    """What a CSV writer wrote is read cell for cell, apart from surrounding space."""
    buffer = io.StringIO()
    style = csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, lineterminator="\n", quoting=style)
    writer.writerows([("a", "b"), *table])

    read = read_cells(buffer.getvalue().encode(), "x.csv")

    assert [tuple(c.strip(" \t\xa0") for c in row) for row in table] == read.rows()


NUMBER_TEXT = st.one_of(
    st.from_regex(r"[+-]?[0-9]{0,3}\.?[0-9]{0,3}([eE][+-]?[0-9]{0,3})?", fullmatch=True),
    st.sampled_from(["inf", "-Infinity", "nan", "NaN", "1_0", "0x1", "1e999", "٣", "true", " 1 "]),
    st.floats(allow_nan=False).map(repr),
)


@settings(max_examples=150, deadline=None)
@given(NUMBER_TEXT)
def test_csv_and_json_read_numbers_alike(text: str):
    """A number's text is read or refused alike in CSV and in a JSON record."""

    def outcome(read):
        try:
            return read()["age"].to_list()
        except BadObject as refused:
            return ("refused", refused.detail["row"], refused.detail["column"])

    from_csv = outcome(
        lambda: read_csv(f"age,city\n{text},a\n".encode(), spec(), "x", require_target=False)
    )
    from_json = outcome(lambda: records_to_frame([{"age": text, "city": "a"}], spec()))

    assert from_csv == from_json


def test_json_records_have_the_tables_types():
    """Numbers, texts, nulls, left-out keys and the target are read as in a file."""
    records = [{"age": 3, "city": "Rome", "bought": "yes"}, {"age": None}, {"city": 7, "age": "4"}]

    frame = records_to_frame(records, spec())

    assert {"age": "Float64", "city": "String"} == {k: str(v) for k, v in frame.schema.items()}
    assert [(3.0, "Rome"), (None, None), (4.0, "7")] == frame.rows()


@pytest.mark.parametrize(
    ("record", "column", "reason"),
    [
        ({"Age": 3}, "Age", "differs only in letter case"),
        ({"height": 3}, "height", "unknown key"),
        ({"age": True}, "age", "a number is needed, not bool"),
        ({"age": [1]}, "age", "a number is needed, not list"),
        ({"age": 10**400}, "age", "not a finite number"),
        ({"age": float("nan")}, "age", "not a finite number"),
        ({"city": 1.5}, "city", "a category is a text"),
        ({"city": False}, "city", "a category is a text"),
    ],
)
def test_wrong_json_is_refused_by_row_and_column(record: dict, column: str, reason: str):
    """A wrong key or value is refused with its row, its column and why."""
    with pytest.raises(BadObject) as refused:
        records_to_frame([{"age": 1}, record], spec())

    assert (2, column) == (refused.value.detail["row"], refused.value.detail["column"])
    assert reason in refused.value.reason
    json.dumps(refused.value.to_dict())
