"""The fast reader of numbers gives what ``float`` gives, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.rows import csv_lines
from ml_control.serving.cells import parse

WRITTEN = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(str),
    st.integers(-(10**18), 10**18).map(str),
    st.from_regex(r"-?[0-9]{0,18}\.[0-9]{1,18}", fullmatch=True),
    st.from_regex(r"[+-]?[0-9]{1,3}\.?(e[+-]?[0-9]{1,2})?", fullmatch=True),
    st.sampled_from(["", "nan", "inf", "-0", "0.1", "16777217", "1e39", "5.", ".5"]),
)


@given(st.lists(st.tuples(WRITTEN, WRITTEN, WRITTEN), min_size=1, max_size=20))
def test_every_cell_is_read_as_float_reads_it(rows):
    """Any way to write a number gives the float32 of its float64, bit for bit; empty is NaN."""
    text = "".join(",".join(row) + "\n" for row in rows).encode()
    with np.errstate(over="ignore"):
        wanted = np.array([[float(cell or "nan") for cell in row] for row in rows], np.float64)
        wanted = wanted.astype(np.float32)

    found = parse(text)

    assert wanted.view(np.uint32).tolist() == found.view(np.uint32).tolist()


def test_what_is_written_is_read_back_exactly():
    """A float32 matrix of every magnitude survives its CSV text."""
    random = np.random.default_rng(1)
    matrix = random.integers(0, 2**32, size=(3000, 7), dtype=np.uint32).view(np.float32)
    matrix = np.where(np.isfinite(matrix), matrix, np.float32("nan"))

    found = parse(b"".join(csv_lines(matrix)))

    np.testing.assert_array_equal(matrix, found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"1,2\n3\n", "line 2 has 1 columns where 2 are expected"),
        (b"1,2\n3,x\n", "line 2: 'x' is not a number"),
        (b"1_0,2\n", "line 1: '1_0' is not a number"),
        (b"-,2\n", "line 1: '-' is not a number"),
        (b"1.2.3,2\n", "line 1: '1.2.3' is not a number"),
        (b"..,2\n", "line 1: '..' is not a number"),
    ],
)
def test_what_is_no_number_is_refused_with_its_line(text, words):
    """No cell is guessed and no line is filled up."""
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        parse(text)
