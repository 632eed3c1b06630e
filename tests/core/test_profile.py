"""Profiles: what a table looks like, and many tables as one."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_control.core.digests import canonical
from ml_control.core.profile import MAX_LEVELS, Profiler, merge, profile
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec


def spec(task: str = "multiclass") -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
            "columns": {
                "target": "t",
                "task": task,
                "features": [
                    {"name": "n", "type": "number", "max": 1000},
                    {"name": "c", "type": "category"},
                ],
            },
        }
    )


def table(numbers: list, levels: list | None = None) -> pl.DataFrame:
    levels = levels or ["x"] * len(numbers)
    return pl.DataFrame(
        {"n": numbers, "c": levels, "t": ["a"] * len(numbers)},
        schema={"n": pl.Float64, "c": pl.String, "t": pl.String},
    )


def test_a_profile_says_what_is_there():
    """Counts, missing and out-of-range values, range, mean, levels and target are exact."""
    frame = table([1.0, 2.0, 3.0, 5000.0, None], ["x", "x", "y", None, ""])

    found = profile(frame, spec())
    number, category = found["features"]["n"], found["features"]["c"]

    assert (5, 3, 1, 1) == (found["rows"], number["count"], number["missing"], number["outside"])
    assert (1.0, 3.0, 2.0) == (number["min"], number["max"], number["mean"])
    assert 2.0 == number["quantiles"]["0.5"]
    assert ({"x": 2, "y": 1, "": 1}, 1) == (category["levels"], category["missing"])
    assert {"a": 5} == found["target"]["levels"]


def test_a_regression_target_is_a_number():
    """The target of a regression is summarised as a number."""
    frame = pl.DataFrame({"n": [1.0], "c": ["x"], "t": [7.5]})

    assert 7.5 == profile(frame, spec("regression"))["target"]["mean"]


NUMBERS = st.lists(
    st.none() | st.floats(-1e300, 1e300) | st.integers(-3, 3).map(float), max_size=40
)


@settings(max_examples=80, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=4))
@example([[0.0], [0.0, 2.2250738585072014e-308]])
def test_merging_is_profiling_all_rows(parts: list[list]):
    """Counts, ranges and levels of merged profiles are those of the whole table."""
    whole = profile(table([value for part in parts for value in part]), spec())
    merged = merge([profile(table(part), spec()) for part in parts])
    number = merged["features"]["n"]

    assert whole["rows"] == merged["rows"]
    assert whole["features"]["c"] == merged["features"]["c"]
    assert whole["target"] == merged["target"]
    for key in ("count", "missing", "outside", "min", "max"):
        assert whole["features"]["n"][key] == number[key]
    if number["count"]:
        mean = whole["features"]["n"]["mean"]
        assert pytest.approx(mean, rel=1e-6, abs=1e30) == number["mean"]
    assert pytest.approx(number["count"], abs=1e-3) == sum(number["bins"]["counts"])
    assert sorted(number["bins"]["edges"]) == number["bins"]["edges"]
    canonical(merged)  # raises on a NaN or an infinity


def test_merged_quantiles_are_close_to_the_whole():
    """Merged from many partitions, quantiles are within a hundredth of the rows."""
    rng = np.random.default_rng(3)
    days = [rng.normal(10 * day, 20, 500) for day in range(8)]
    values = np.concatenate(days)

    merged = merge([profile(table(day.tolist()), spec()) for day in days])

    for share, value in merged["features"]["n"]["quantiles"].items():
        assert pytest.approx(float(share), abs=0.012) == float((values <= value).mean())


def test_levels_beyond_the_cap_are_counted_together():
    """Only the most frequent levels keep their names; the other rows are still counted."""
    levels = [f"l{place}" for place in range(MAX_LEVELS + 5)] + ["l3"]

    found = profile(table([1.0] * len(levels), levels), spec())["features"]["c"]

    assert (MAX_LEVELS, 5, len(levels)) == (len(found["levels"]), found["other"], found["count"])
    assert "l3" == next(iter(found["levels"]))


def test_images_are_profiled_by_brightness_and_contrast():
    """From columns or from pixels, an image's brightness and contrast are the same."""
    images = PipelineSpec.model_validate(
        {
            "source": {"format": "images", "partition": {"start": "2026-01-01"}},
            "columns": {"task": "multiclass"},
        }
    )
    pixels = pl.DataFrame({"label": ["a", "b"], "pixels": [bytes([0, 200]), bytes([50, 50])]})
    columns = pixels.with_columns(
        brightness=pl.Series([100.0, 50.0]), contrast=pl.Series([100.0, 0.0])
    )

    found = profile(pixels, images)

    arrays = pixels.with_columns(pl.Series("pixels", [[0, 200], [50, 50]]))

    assert profile(columns, images) == found
    assert profile(arrays, images) == found
    assert (50.0, 100.0) == (
        found["features"]["brightness"]["min"],
        found["features"]["contrast"]["max"],
    )
    assert {"a": 1, "b": 1} == found["target"]["levels"]


def test_profiles_of_other_columns_do_not_merge():
    """Partitions processed under different columns are refused, naming the difference."""
    one = profile(table([1.0]), spec())
    other = {**one, "features": {"n": one["features"]["n"]}}

    with pytest.raises(BadObject, match="differ in the columns c"):
        merge([one, other])
    with pytest.raises(BadObject, match="none to merge"):
        merge([])


@settings(max_examples=40, deadline=None)
@given(NUMBERS, st.lists(st.integers(0, 40), max_size=4))
def test_blocks_give_the_profile_of_the_whole(numbers: list, cuts: list[int]):
    """However the rows are cut into blocks, the profile is exactly that of one frame."""
    frame = table(numbers)
    ends = [0, *sorted(min(cut, frame.height) for cut in cuts), frame.height]
    profiler = Profiler(spec())

    for start, end in pairwise(ends):
        profiler.add(frame[start:end])

    assert profile(frame, spec()) == profiler.result()


def test_beyond_the_sample_counts_stay_exact():
    """Of 400,000 rows, counts, range, mean and levels are exact and quantiles close."""
    rng = np.random.default_rng(8)
    numbers = rng.normal(0, 300, 400_000).round(3)
    frame = table(numbers.tolist()).with_columns(
        n=pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise(pl.col("n"))
    )
    profiler = Profiler(spec())
    for start in range(0, 400_000, 70_000):
        profiler.add(frame[start : start + 70_000])

    found = profiler.result()["features"]["n"]
    present = frame["n"].drop_nulls()
    inside = present.filter(present <= 1000).to_numpy()

    assert (len(inside), 40_000) == (found["count"], found["missing"])
    assert len(present) - len(inside) == found["outside"]
    assert (inside.min(), inside.max()) == (found["min"], found["max"])
    assert pytest.approx(inside.mean(), rel=1e-9) == found["mean"]
    assert pytest.approx(len(inside)) == sum(found["bins"]["counts"])
    assert (found["min"], found["max"]) == (found["bins"]["edges"][0], found["bins"]["edges"][-1])
    for share, value in found["quantiles"].items():
        assert pytest.approx(float(share), abs=0.01) == float((inside <= value).mean())


def test_a_value_of_many_rows_merges_exactly():
    """A spike stays at its value, whatever edges the other partitions have around it."""
    rng = np.random.default_rng(9)
    days = [np.where(rng.random(400) < 0.8, 0.0, rng.gamma(2, 100, 400)) for _ in range(6)]
    days.append(np.zeros(100))

    bins = merge([profile(table(day.tolist()), spec()) for day in days])["features"]["n"]["bins"]

    zeros = sum(int((day == 0).sum()) for day in days)
    assert (0.0, np.nextafter(0, 1)) == tuple(bins["edges"][:2])
    assert pytest.approx(zeros) == bins["counts"][0]
