"""CSV in blocks: the fast way, the careful way and any block size give one table or refusal."""

import csv
import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core import csv_blocks
from ml_control.core.csv_blocks import CsvReader
from ml_control.core.csv_small import SMALL
from ml_control.core.header import MAX_COLUMNS
from ml_control.core.lines import MAX_LINE
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

SPEC = PipelineSpec.model_validate(
    {
        "name": "shop",
        "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
        "columns": {
            "target": "bought",
            "task": "binary",
            "positive": "yes",
            "features": [
                {"name": "age", "type": "number"},
                {"name": "city", "type": "category"},
                {"name": "paid", "type": "number"},
            ],
            "ignore": ["id"],
        },
    }
)
HEADER = ["id", "age", "city", "paid", "bought"]
NUMBER = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"[+-]?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["", "NA", "?", " 5", "5 ", "1_0", "inf", "nan", "1e999", "-", "0x1", '"3"']),
)
TEXT = st.text(st.sampled_from('ab"é, ?\n\r\t\xa0\x0bNA'), max_size=5)
USUAL = st.integers(0, 99).map(str)


def read(data: bytes, **options):
    """The table, or what was refused and where."""
    step = options.pop("step", 7)
    chunks = [data[at : at + step] for at in range(0, len(data), step)]
    try:
        frames = list(CsvReader(chunks, "x.csv", SPEC, **options).blocks())
    except BadObject as refused:
        return refused.reason, refused.detail
    return pl.concat(frames).rows()


def written(rows, quoting, ending="\n") -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=ending, quoting=quoting).writerows([HEADER, *rows])
    return buffer.getvalue().encode()


ROWS = st.lists(
    st.one_of(
        st.tuples(USUAL, USUAL, st.sampled_from(["Rome", "é", ""]), USUAL, st.just("yes")),
        st.tuples(USUAL, NUMBER, TEXT, NUMBER, st.sampled_from(["yes", "no", "", " no "])),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(
    ROWS,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.integers(1, 60),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_fast_and_careful_agree_at_any_block_size(rows, quoting, block, ending):
    """Any table that a CSV writer wrote reads alike: fast or not, whole or in tiny blocks."""
    data = written(rows, quoting, ending)

    expected = read(data, fast=False)
    for small in (0, SMALL):
        assert expected == read(data, small=small)
        assert expected == read(data, small=small, block=block)
    assert expected == read(data, fast=False, block=block, step=3)


LINE = st.text(st.sampled_from('0123456789,,,,"x .-\n'), max_size=12)


@settings(max_examples=120, deadline=None)
@given(st.lists(LINE, max_size=6), st.integers(1, 40))
def test_any_text_reads_alike_at_any_block_size(lines, block):
    """Whatever stands below the header, ragged, quoted or broken: one table or one refusal."""
    body = "\n".join(["id,age,city,paid,bought", "1,2,Rome,3,yes", *lines])
    data = body.encode()

    expected = read(data, fast=False)
    for small in (0, SMALL):
        assert expected == read(data, small=small)
        assert expected == read(data, small=small, block=block)
    assert expected == read(data, fast=False, block=block)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(1, 30))
def test_any_bytes_give_a_table_or_a_typed_refusal(tail, block):
    """Bytes that are no text are refused at the same place whatever the blocks."""
    data = b"id,age,city,paid,bought\n1,2,Rome,3,yes\n" + tail

    assert read(data) == read(data, block=block)


def test_usual_blocks_take_the_fast_way(monkeypatch):
    """Plain, quoted, CRLF and missing cells never need the slow ways."""

    def fail(*_):
        raise AssertionError("the slow way was taken")

    monkeypatch.setattr(CsvReader, "_texts", fail)
    monkeypatch.setattr(CsvReader, "_carefully", fail)
    body = b'1,2.5,Rome,NA,yes\n2,,"a, ""b""",-1e3,no\n"3","4",?,5,no\n'

    for data in (body, body.replace(b"\n", b"\r\n"), body.rstrip()):
        head = b"id,age,city,paid,bought\n"
        for small in (0, SMALL):
            assert [
                (2.5, "Rome", None, "yes"),
                (None, 'a, "b"', -1000.0, "no"),
                (4.0, None, 5.0, "no"),
            ] == read(head + data, step=1000, small=small)


def test_a_small_file_needs_no_polars_reader(monkeypatch):
    """A partition of thousands of small plain files does not pay for polars' reader once each."""
    monkeypatch.setattr(pl, "read_csv", lambda *_, **__: pytest.fail("polars read it"))
    head = b"id,age,city,paid,bought\n"

    for body in (b"1,2.5,Rome,NA,yes\n2,,?,-1e3,no\n", b"1,2.5, Rome ,,yes\r\n2,?,,-1000., no"):
        rows = [(2.5, "Rome", None, "yes"), (None, None, -1000.0, "no")]

        assert rows == read(head + body, step=1000)


def test_short_rows_made_good_by_long_ones_are_found():
    """Two ragged rows whose commas add up to two whole ones are still refused, at the first."""
    body = b"id,age,city,paid,bought\n" + b"1,2,a,3,yes\n" * 50 + b"1,2,a,3\n1,2,a,3,yes,\n"

    reason, detail = read(body, step=10_000)
    assert ("row 51 has 4 cells, the header has 5", 51) == (reason, detail["row"])


def test_the_first_bad_row_is_the_one_told():
    """Several things wrong: the refusal names the first row, whichever kind its fault is."""
    head = b"id,age,city,paid,bought\n1,2,a,3,yes\n"
    for bad, row, said in (
        (b"1,x,a,3,yes\n1,2,a\n", 2, "'x' is not a finite number"),
        (b"1,2,a\n1,x,a,3,yes\n", 2, "has 3 cells"),
        (b"1,2,a,y,yes\n1,x,a,3,yes\n", 2, "'y' is not a finite number"),
        (b"1,2,a,3,\n1,x,a,3,yes\n", 2, "has no 'bought', the target (1 such rows)"),
        (b"1,x,a,3,yes\n1,2,\xff,3,yes\n", 2, "'x' is not a finite number"),
        (b'1,x,a,3,yes\n1,2,"a"b,3,yes\n', 2, "'x' is not a finite number"),
    ):
        for block in (1, 30, 10_000):
            reason, detail = read(head + bad, block=block)
            assert said in reason
            assert row == detail["row"]


def test_the_difference_of_columns_is_one_sentence():
    """All that is missing, looks alike or is too much is told at once, in bounded length."""
    data = b"id,AGE,Ci ty,bought,x,y\n1,2,3,4,5,6\n"
    reason, detail = read(data)

    assert "age" == detail["column"]
    assert (
        "column 'age' is missing (so are 'city', 'paid'); the header has 'AGE' for 'age', "
        "'Ci ty' for 'city', which differ in letter case or spaces; "
        "unexpected column 'x' (also 'y')"
    ) == reason
    many = ",".join([f"column{i}" + "z" * 500 for i in range(900)]).encode()
    assert 1000 > len(read(many + b"\n1\n")[0])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b",".join(b"c%d" % i for i in range(100_000)) + b"\n1\n", "has 100,000 columns; at most"),
        (b"id,age,city,paid,bought\n1,2," + b"a" * 1_000_000 + b",3,yes\n", "row 1 has a field"),
        (b"id," * MAX_COLUMNS + b"id\n", f"at most {MAX_COLUMNS:,}"),
    ],
)
def test_beyond_the_limits(data, said):
    """A header or a cell beyond the limits is refused in plain words."""
    assert said in read(data, step=1 << 16)[0]


def test_a_line_without_end_is_not_gathered_for_ever():
    """A stream without line breaks is refused after a bounded number of bytes."""
    taken = []

    def chunks():
        yield b"id,age,city,paid,bought\n"
        for _ in range(40):
            taken.append(1)
            yield b"1" * (1 << 20)

    with pytest.raises(BadObject, match="has a line of more than"):
        list(CsvReader(chunks(), "x.csv", SPEC, block=1 << 20).blocks())

    assert (MAX_LINE >> 20) + 3 > len(taken)


def test_blocks_are_bounded():
    """A long file comes in blocks of about the asked size, in order."""
    data = b"id,age,city,paid,bought\n" + b"".join(b"%d,%d,a,3,yes\n" % (i, i) for i in range(5000))
    chunks = [data[at : at + 100] for at in range(0, len(data), 100)]

    frames = list(CsvReader(chunks, "x.csv", SPEC, block=2000).blocks())

    assert 200 > max(frame.height for frame in frames)
    assert list(range(5000)) == pl.concat(frames)["age"].to_list()
    assert csv_blocks.BLOCK <= MAX_LINE
