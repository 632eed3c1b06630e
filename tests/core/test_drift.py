"""Drift: what the index says, how seldom it cries wolf, and what it compares with."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.drift import LEAST_ROWS, drift, psi
from ml_control.core.profile import merge, profile
from ml_control.spec import PipelineSpec

SPEC = PipelineSpec.model_validate(
    {
        "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
        "columns": {
            "target": "t",
            "task": "binary",
            "positive": "1",
            "features": [
                {"name": "bell", "type": "number"},
                {"name": "zeros", "type": "number", "min": 0},
                {"name": "codes", "type": "number"},
                {"name": "gaps", "type": "number"},
                {"name": "few", "type": "category"},
                {"name": "many", "type": "category"},
            ],
        },
    }
)


def draw(rng: np.random.Generator, rows: int, **changes: object) -> pl.DataFrame:
    """Rows without drift: a bell, a spike at zero with a tail, codes, gaps, two categories."""
    columns = {
        "bell": rng.normal(size=rows),
        "zeros": np.where(rng.random(rows) < 0.9, 0.0, rng.gamma(2, 1000, rows)),
        "codes": rng.integers(0, 5, rows).astype(float),
        "gaps": np.where(rng.random(rows) < 0.03, np.nan, rng.normal(size=rows).round(1)),
        "few": rng.choice(["a", "b"], rows, p=[0.97, 0.03]),
        "many": [f"l{level}" for level in rng.integers(0, 300, rows)],
        "t": np.where(rng.random(rows) < 0.1, "1", "0"),
        **changes,
    }
    return pl.DataFrame(columns)


def reference(rng: np.random.Generator, days: int = 8, rows: int = 300) -> dict:
    return merge([profile(draw(rng, rows), SPEC) for _ in range(days)])


COUNTS = st.lists(st.integers(0, 1_000), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(COUNTS.flatmap(lambda one: st.tuples(st.just(one), st.permutations(one))))
def test_the_index_is_a_symmetric_distance(pair: tuple[list[int], list[int]]):
    """It is 0 for equal shares, never negative, and the same both ways."""
    one, other = pair

    assert 0 == psi(one, one)
    assert psi(one, other) >= 0
    assert pytest.approx(psi(other, one)) == psi(one, other)


def test_the_index_is_the_textbooks():
    """Shares of 0.5, 0.5 against 0.25, 0.75 give the formula's value."""
    expected = 0.25 * math.log(2) + (-0.25) * math.log(0.5 / 0.75)

    assert pytest.approx(expected) == psi([500, 500], [250, 750])


@pytest.mark.parametrize("rows", [LEAST_ROWS, 100, 400])
def test_it_seldom_cries_wolf(rows: int):
    """Of 120 partitions without drift at most one is called drifted, however small they are."""
    rng = np.random.default_rng(rows)
    known = reference(rng)

    alarms = sum(
        any(one.beyond(0.2) for one in drift(draw(rng, rows), known, SPEC)) for _ in range(120)
    )

    assert alarms <= 1


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("bell", lambda rng, rows: rng.normal(1.0, size=rows)),
        ("zeros", lambda rng, rows: np.where(rng.random(rows) < 0.5, 0, rng.gamma(2, 1000, rows))),
        ("codes", lambda rng, rows: rng.integers(3, 8, rows).astype(float)),
        ("gaps", lambda rng, rows: np.where(rng.random(rows) < 0.3, np.nan, rng.normal(size=rows))),
        ("few", lambda rng, rows: rng.choice(["a", "new"], rows, p=[0.8, 0.2])),
        ("t", lambda rng, rows: np.where(rng.random(rows) < 0.4, "1", "0")),
    ],
)
def test_drift_is_found_where_it_is(column: str, values: object):
    """A moved mean, a shrunk spike, other codes, gaps, an unseen level, another base rate."""
    rng = np.random.default_rng(5)

    found = drift(draw(rng, 1_000, **{column: values(rng, 1_000)}), reference(rng), SPEC)

    assert [column] == [one.name for one in found if one.beyond(0.2)]
    assert column == found[0].name


def test_what_cannot_be_compared_is_left_out():
    """Too few rows on either side, and columns that the reference lacks, give no index."""
    rng = np.random.default_rng(6)
    known = reference(rng)
    without = {**known, "features": {"bell": known["features"]["bell"]}}

    assert [] == drift(draw(rng, LEAST_ROWS - 1), known, SPEC)
    assert [] == drift(draw(rng, 500), {**known, "rows": LEAST_ROWS - 1}, SPEC)
    assert {"bell", "t"} == {one.name for one in drift(draw(rng, 500), without, SPEC)}


def test_a_column_of_one_value_drifts_when_it_moves():
    """Against a constant, the same constant has no drift and another value all of it."""
    rng = np.random.default_rng(7)
    known = profile(draw(rng, 500, codes=np.full(500, 3.0)), SPEC)

    same = drift(draw(rng, 500, codes=np.full(500, 3.0)), known, SPEC)
    moved = drift(draw(rng, 500, codes=np.full(500, 4.0)), known, SPEC)

    assert 0 == next(one.psi for one in same if one.name == "codes")
    assert ("codes", True) == (moved[0].name, moved[0].beyond(0.2))
