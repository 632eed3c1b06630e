"""Samples, counts and levels of rows that come in blocks: the same however they are cut."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.sampling import Distinct, Levels, RowSample


def blocks(frame: pl.DataFrame, cuts: list[int]) -> list[pl.DataFrame]:
    """The frame cut at these places."""
    ends = [0, *sorted(min(cut, frame.height) for cut in cuts), frame.height]
    return [frame[start:end] for start, end in itertools.pairwise(ends)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(1, 120), st.lists(st.integers(0, 400), max_size=6))
def test_the_sample_does_not_depend_on_the_blocks(rows: int, most: int, cuts: list[int]):
    """Any cut of the same rows gives the same sample, in order, of the size asked for."""
    frame = pl.DataFrame({"row": np.arange(rows)})
    whole, cut = RowSample(most), RowSample(most)

    whole.add(frame)
    for block in blocks(frame, cuts):
        cut.add(block)

    assert whole.frame().equals(cut.frame())
    assert (min(rows, most), rows) == (cut.frame().height, cut.seen)
    assert cut.frame()["row"].is_sorted()
    assert (rows <= most) == cut.whole


def test_the_sample_is_uniform():
    """Each tenth of the rows gives about a tenth of the sample, and repeats count like others."""
    sample = RowSample(5_000)
    for start in range(0, 100_000, 7_000):
        rows = np.arange(start, min(start + 7_000, 100_000))
        sample.add(pl.DataFrame({"row": rows, "same": np.where(rows % 3, 0, 1)}))

    tenths = np.bincount(sample.frame()["row"].to_numpy() // 10_000)

    # Five standard deviations of a tenth of 5,000.
    assert np.abs(tenths - 500).max() < 5 * np.sqrt(5_000 * 0.09)
    assert pytest.approx(1 / 3, abs=0.035) == sample.frame()["same"].mean()


def test_the_sample_holds_little():
    """However many rows come, no more than one and a half samples are held."""
    sample, most = RowSample(100), 0
    for start in range(0, 50_000, 500):
        sample.add(pl.DataFrame({"row": np.arange(start, start + 500)}))
        most = max(most, sum(frame.height for frame in sample._frames))

    assert most <= 150


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, -0.0, 1.0, float("nan"), None]), st.sampled_from(["", "a", None])
        ),
        max_size=30,
    ),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_different_rows_are_counted(rows: list, cuts: list[int]):
    """The count over blocks is that of the whole table: -0 is 0, a missing value is a value."""
    frame = pl.DataFrame(rows, schema={"n": pl.Float64, "c": pl.String}, orient="row")
    found = Distinct()

    for block in blocks(frame, cuts):
        found.add(block, ["n", "c"])

    assert frame.unique().height == found.count()
    assert frame.height == found.rows


def test_hashes_of_a_grid_do_not_collide():
    """Rows of small whole numbers, the likeliest to collide in a poor hash, all count."""
    side = np.arange(1_000.0)
    found = Distinct()

    found.add(pl.DataFrame({"a": np.repeat(side, 1_000), "b": np.tile(side, 1_000)}), ["a", "b"])

    assert 1_000_000 == found.count()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.none() | st.sampled_from(["", "a", "b", "c"]), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_levels_are_exact_while_there_are_few(values: list, cuts: list[int]):
    """Below the cap, counts and missing rows are those of the whole column."""
    frame = pl.DataFrame({"c": values}, schema={"c": pl.String})
    levels = Levels(10)

    for block in blocks(frame, cuts):
        levels.add(block["c"])

    assert {v: values.count(v) for v in values if v is not None} == levels.counts()
    assert (values.count(None), 0) == (levels.missing, levels.other)
    assert len(set(values) - {None}) == levels.distinct


def test_levels_beyond_the_cap_stay_bounded():
    """Frequent levels keep exact counts, every row is counted once, and memory is bounded."""
    rng = np.random.default_rng(2)
    levels, held = Levels(2_000), 0
    for _ in range(10):
        rare = [f"r{i}" for i in rng.integers(0, 50_000, 9_000)]
        levels.add(pl.Series("c", [*rare, *["often"] * 1_000]))
        held = max(held, len(levels._counts))

    assert held <= 2_000
    assert 10_000 == levels.counts()["often"]
    assert 100_000 == sum(levels.counts().values()) + levels.other
    expected = 50_000 * (1 - (1 - 1 / 50_000) ** 90_000) + 1
    assert pytest.approx(expected, rel=0.1) == levels.distinct
