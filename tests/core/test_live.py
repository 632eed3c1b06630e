"""Live requests on the bins of the training data: exact sums, in the profile's own form."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.drift import psi
from ml_control.core.live import (
    MOST_LEVELS,
    live_predictions,
    live_profile,
    merged,
    number_summary,
    reference_predictions,
)
from ml_control.core.profile import profile
from ml_control.spec import PipelineSpec

FEATURES = [
    {"name": "age", "type": "number", "min": 0, "max": 120},
    {"name": "one", "type": "number"},
    {"name": "town", "type": "category"},
]


def pipeline(task):
    positive = "yes" if task == "binary" else None
    columns = {"target": "kind", "task": task, "positive": positive, "features": FEATURES}
    source = {"format": "csv", "partition": {"by": "day", "start": "2026-01-01"}}
    return PipelineSpec.model_validate({"name": "shop", "source": source, "columns": columns})


SPEC = pipeline("binary")


def table(ages, ones, towns):
    return pl.DataFrame(
        {"age": ages, "one": ones, "town": towns},
        schema={"age": pl.Float64, "one": pl.Float64, "town": pl.String},
    )


def trained(rows=1000):
    random = np.random.default_rng(0)
    frame = table(
        random.gamma(2, 20, rows).clip(0, 120), [5.0] * rows, random.choice(["a", "b", "c"], rows)
    )
    return frame, profile(frame.with_columns(kind=pl.lit("yes")), SPEC)


def test_the_training_data_itself_has_not_drifted():
    """Counted again as live requests, its numbers fall into the same bins in the same counts."""
    frame, reference = trained()
    live = live_profile(frame, reference, SPEC)
    before, now = reference["features"], live["features"]

    assert reference["rows"] == live["rows"]
    assert before["age"]["bins"] == now["age"]["bins"]
    assert before["town"]["levels"] == now["town"]["levels"]
    for key in ("count", "missing", "outside", "min", "max"):
        assert before["age"][key] == now["age"][key]
    assert pytest.approx(before["age"]["mean"]) == now["age"]["mean"]
    assert 0.0 == psi(now["age"]["bins"]["counts"], before["age"]["bins"]["counts"])


def test_what_lies_beyond_the_known_values_is_counted():
    """In the outer bins; out of range, missing and unseen levels on their own."""
    _, reference = trained()
    frame = table([0.0, 120.0, -1.0, 500.0, None], [4.0, 5.0, 6.0, 5.0, 5.0], [*"axyb", None])
    found = live_profile(frame, reference, SPEC)["features"]

    assert (2, 2, 1) == tuple(found["age"][k] for k in ("count", "outside", "missing"))
    assert (1.0, 1.0) == (found["age"]["bins"]["counts"][0], found["age"]["bins"]["counts"][-1])
    assert [1.0, 3.0, 1.0] == found["one"]["bins"]["counts"]
    town = found["town"]
    assert ({"a": 1, "b": 1}, 2, 1) == (town["levels"], town["other"], town["missing"])


numbers = st.lists(st.none() | st.floats(-10, 200, width=32), max_size=30)


@settings(max_examples=60)
@given(st.lists(numbers, min_size=1, max_size=5))
def test_merging_hours_is_counting_them_together(hours):
    """Exactly, on the edges of the reference, whatever was in each of them."""
    _, reference = trained()
    frames = [table(ages, ages, [str(age) for age in ages]) for ages in hours]
    one = live_profile(pl.concat(frames), reference, SPEC)
    many = merged([live_profile(frame, reference, SPEC) for frame in frames])

    assert one["rows"] == many["rows"]
    for name in ("age", "one"):
        own, other = one["features"][name], many["features"][name]
        assert own["bins"] == other["bins"]
        assert own["quantiles"] == other["quantiles"]
        for key in ("count", "missing", "outside", "min", "max"):
            assert own[key] == other[key]
        assert own["mean"] == pytest.approx(other["mean"])
    for key in ("count", "missing", "levels", "other"):
        assert one["features"]["town"][key] == many["features"]["town"][key]


def test_without_a_reference_the_sums_are_still_right():
    """A model that nobody knows any more has bins of its own hours."""
    frames = [table([1.0, 9.0], [1.0, 1.0], ["a", "b"]), table([3.0], [None], ["a"])]
    found = merged([live_profile(frame, None, SPEC) for frame in frames])["features"]

    assert (3, 1.0, 9.0) == tuple(found["age"][k] for k in ("count", "min", "max"))
    assert 3 == sum(found["age"]["bins"]["counts"])
    assert {"a": 2, "b": 1} == found["town"]["levels"]


def test_levels_stay_bounded():
    """However many different texts come, and however often hours are merged."""
    towns = [f"t{i}" for i in range(1000)]
    one = live_profile(table([1.0] * 1000, [1.0] * 1000, towns), None, SPEC)
    found = merged([one, one])["features"]["town"]

    assert (MOST_LEVELS, 2000) == (len(found["levels"]), found["count"])
    assert 2000 == sum(found["levels"].values()) + found["other"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_answers_fall_into_the_bins_of_the_test_rows_answers(task):
    """So that the distance between the two is that of their counts."""
    random = np.random.default_rng(1)
    raw = {
        "binary": random.random(500),
        "multiclass": random.dirichlet([1, 1, 1], 500),
        "regression": random.normal(size=(500, 1)),
    }[task]
    labels = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    reference = reference_predictions(raw, labels, task)
    scores = raw.max(axis=1) if task == "multiclass" else raw.reshape(500)
    found = live_predictions(
        pl.Series(scores),
        pl.Series([None] * 500, dtype=pl.String),
        {"prediction": reference},
        pipeline(task),
    )

    assert reference["score"]["bins"] == found["score"]["bins"]
    assert 500 == sum(found["score"]["bins"]["counts"])
    assert (task != "regression") == ("label" in found) == ("label" in reference)
    if "label" in reference:
        assert 500 == sum(reference["label"]["levels"].values())


def test_a_column_without_values_has_no_bins():
    """Nothing is known of it, and nothing breaks."""
    empty = number_summary(pl.Series([None, None], dtype=pl.Float64), [])

    assert (0, 2, [], None) == (
        empty["count"], empty["missing"], empty["bins"]["counts"], empty["mean"]
    )  # fmt: skip
