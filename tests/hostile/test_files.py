"""Bad files, each with the refusal it must get: kind, object, row, column and reason."""

from collections.abc import Callable

import pytest
from bad_files import (
    ACCEPTED,
    GOOD,
    IMAGES,
    JSONL,
    PARQUET,
    PNG,
    RECORD,
    SPEC,
    TABLES,
    jpeg,
    parquet,
)

from ml_control.core.images import decode
from ml_control.core.parquet import ParquetReader
from ml_control.core.tabular import read_csv, text_blocks
from ml_control.errors import BadObject
from ml_control.spec import ImageShape


def test_the_good_file_is_read():
    """The file that the bad ones are made from is good, so each defect is its own."""
    assert [(31.0, "Rome", "yes")] == read_csv(GOOD, SPEC, "dt=2026-01-01/x.csv").rows()
    assert (8, 8) == decode(PNG, ImageShape(height=8, width=8), "x.png").shape
    assert (8, 8) == decode(jpeg(), ImageShape(height=8, width=8), "x.jpg").shape


@pytest.mark.parametrize(
    ("build", "row", "column", "reason"), [case[1:] for case in TABLES], ids=[c[0] for c in TABLES]
)
def test_a_bad_table_is_refused(build: Callable, row: int | None, column: str | None, reason: str):
    """Each bad table is refused whole, naming the file, the place, the reason and a next step."""
    with pytest.raises(BadObject) as refused:
        read_csv(build(), SPEC, "dt=2026-01-01/x.csv")

    error = refused.value
    assert ("BadObject", "dt=2026-01-01/x.csv") == (error.kind, error.object)
    assert reason in error.reason
    assert (row, column) == (error.detail.get("row"), error.detail.get("column"))
    assert error.next


@pytest.mark.parametrize(
    ("build", "rows"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED]
)
def test_an_odd_but_whole_table_is_read(build: Callable, rows: list):
    """What is unusual and can mean one thing only is accepted, with the values meant."""
    assert rows == read_csv(build(), SPEC, "dt=2026-01-01/x.csv").rows()


def read(kind: str, data: bytes, folder):
    """All rows of an object of a format."""
    source = SPEC.source.model_copy(update={"format": kind})
    spec, name = SPEC.model_copy(update={"source": source}), f"x.{kind}"
    if kind == "jsonl":
        return [row for block in text_blocks([data], spec, name) for row in block.rows()]
    path = folder / name
    path.write_bytes(data)
    return [row for block in ParquetReader(path, name, spec).blocks() for row in block.rows()]


def test_the_good_objects_of_other_formats_are_read(tmp_path):
    """What the bad Parquet and JSON-lines objects are made from is good."""
    assert [(31.0, "Rome", "yes"), (32.0, "Bonn", "no")] == read("parquet", parquet(), tmp_path)
    assert [(31.0, "Rome", "yes")] == read("jsonl", RECORD, tmp_path)


OTHER = [("parquet", *case) for case in PARQUET] + [("jsonl", *case) for case in JSONL]


@pytest.mark.parametrize(
    ("kind", "build", "row", "column", "reason"),
    [(case[0], *case[2:]) for case in OTHER],
    ids=[f"{case[0]} {case[1]}" for case in OTHER],
)
def test_a_bad_object_of_another_format_is_refused(kind, build, row, column, reason, tmp_path):
    """As a bad CSV is: naming the object, the place, the reason and a next step."""
    with pytest.raises(BadObject) as refused:
        read(kind, build(), tmp_path)

    error = refused.value
    assert ("BadObject", f"x.{kind}") == (error.kind, error.object)
    assert reason in error.reason
    assert (row, column) == (error.detail.get("row"), error.detail.get("column"))
    assert error.next


@pytest.mark.parametrize(
    ("build", "reason"), [case[1:] for case in IMAGES], ids=[c[0] for c in IMAGES]
)
def test_a_bad_image_is_refused(build: Callable, reason: str):
    """Each bad image is refused, naming the file, the reason and a next step."""
    with pytest.raises(BadObject) as refused:
        decode(build(), ImageShape(height=8, width=8), "cats/1.png")

    assert "cats/1.png" == refused.value.object
    assert reason in refused.value.reason
    assert refused.value.next
