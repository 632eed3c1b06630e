"""Live drift and quality from counts alone: the same answer as from rows, and seldom a wolf."""

import numpy as np
import polars as pl
import pytest

from ml_control.core.drift import drift
from ml_control.core.live import live_profile, reference_predictions
from ml_control.core.live_drift import drift_between
from ml_control.core.live_quality import OutcomeSums, added, fall, value_of
from ml_control.core.profile import profile
from ml_control.spec import PipelineSpec

NOW = 1_700_000_000.0
DAY = 86400.0
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
                {"name": "few", "type": "category"},
            ],
        },
    }
)


def draw(rng, rows, shift=0.0, share=0.03):
    return pl.DataFrame(
        {
            "bell": rng.normal(size=rows) + shift,
            "zeros": np.where(rng.random(rows) < 0.9, 0.0, rng.gamma(2, 1000, rows)),
            "few": rng.choice(["a", "b"], rows, p=[1 - share, share]),
            "t": np.where(rng.random(rows) < 0.1, "1", "0"),
        }
    )


@pytest.mark.parametrize(("shift", "share"), [(0.0, 0.03), (0.5, 0.03), (0.0, 0.3)])
def test_counts_on_the_same_bins_give_the_index_of_the_rows(shift, share):
    """A look at live histograms says exactly what a look at the requests would."""
    rng = np.random.default_rng(5)
    reference = profile(draw(rng, 4000), SPEC)
    frame = draw(rng, 800, shift, share)
    live = live_profile(frame.drop("t"), reference, SPEC)

    found = drift_between(live["features"], reference["features"], (800, 4000))

    by_rows = {one.name: one.psi for one in drift(frame, reference, SPEC)}
    assert {one.name: pytest.approx(one.psi) for one in found} == {
        name: by_rows[name] for name in ("bell", "zeros", "few")
    }
    drifted = {one.name for one in found if one.beyond(0.2)}
    assert ({"bell"} if shift else {"few"} if share > 0.1 else set()) == drifted


def test_few_requests_say_nothing():
    """Below fifty rows there is no answer, which is not the same as no drift."""
    reference = profile(draw(np.random.default_rng(1), 500), SPEC)

    assert [] == drift_between(reference["features"], reference["features"], (49, 500))


def test_a_column_that_is_not_logged_is_left_out():
    """A masked column has no histogram."""
    reference = profile(draw(np.random.default_rng(1), 500), SPEC)["features"]
    live = {name: one for name, one in reference.items() if name != "bell"}

    assert {"zeros", "few"} == {one.name for one in drift_between(live, reference, (500, 500))}


@pytest.mark.parametrize("bins", [5, 10, 20])
@pytest.mark.parametrize("moved", [False, True])
def test_predictions_are_compared_whatever_their_bins(bins, moved):
    """Finer bins are put together to the coarser ones of the other side."""
    rng = np.random.default_rng(7)
    known = reference_predictions(rng.beta(1, 4, 3000), ["0", "1"], "binary")
    live = rng.beta(2, 3, 2000) if moved else rng.beta(1, 4, 2000)
    edges = np.linspace(0, 1, bins + 1)
    counts = np.histogram(live, edges)[0].tolist()
    now = {"kind": "number", "count": 2000, "bins": {"edges": edges.tolist(), "counts": counts}}

    (found,) = drift_between({"score": now}, known, (2000, 3000))

    assert moved == found.beyond(0.2)
    assert found.psi < found.chance or moved


def test_a_column_of_one_value_drifts_when_it_has_others():
    """Live it has a bin of its own between all that is below and above."""
    frame = pl.DataFrame(
        {"bell": [3.0] * 400, "zeros": [0.0] * 400, "few": "a", "t": ["1", "0"] * 200}
    )
    known = profile(frame, SPEC)
    same = live_profile(frame.select("bell"), known, SPEC)
    moved = live_profile(frame.select(pl.col("bell") + 1), known, SPEC)

    (stable,) = drift_between(same["features"], known["features"], (400, 400))
    (drifted,) = drift_between(moved["features"], known["features"], (400, 400))

    assert (0.0, False, True) == (stable.psi, stable.beyond(0.2), drifted.beyond(0.2))


@pytest.mark.parametrize(
    ("task", "label", "score", "outcome", "value"),
    [
        ("binary", "yes", 0.9, "yes", 1.0),
        ("binary", "yes", 0.9, "no", 0.0),
        ("multiclass", "3", 0.9, 3, 1.0),
        ("multiclass", "three", 0.9, 3, 0.0),
        ("binary", "true", 0.9, True, 1.0),
        ("binary", "False", 0.9, True, 0.0),
        ("binary", "yes", 0.9, {"revenue": 3.0}, None),
        ("binary", None, 0.9, "yes", None),
        ("regression", None, 2.5, 4, 1.5),
        ("regression", None, 2.5, "4", None),
        ("regression", None, 2.5, float("nan"), None),
        ("regression", None, 2.5, True, None),
    ],
)
def test_the_value_of_an_outcome(task, label, score, outcome, value):
    """Right or wrong, or how far off; nothing where the outcome does not tell."""
    assert value == value_of(task, label, score, outcome)


def told(values, model="m", at=NOW):
    return added(OutcomeSums(pipeline="p"), 1, [(model, at, float(value)) for value in values])


def judged(sums, verdict=0.9, now=NOW, **options):
    options = {"test_rows": 20_000, "lower_is_better": False, **options}
    return fall(sums, "m", now, verdict=verdict, **options)


def test_outcomes_are_summed_by_model_and_day_and_old_ones_forgotten():
    """Only the last days count; the item stays small however long it is added to."""
    sums = OutcomeSums(pipeline="p")
    for day in range(60):
        sums = added(sums, day, [(f"m{day // 7}", NOW + day * DAY, 1.0)])

    assert (59, 30) == (sums.offset, len(sums.told))
    assert 6 == len(sums.days)
    assert judged(told([1.0] * 100), now=NOW + 8 * DAY) is None
    assert 100 == judged(told([1.0] * 100), now=NOW + 6 * DAY).outcomes


def test_a_fall_must_be_beyond_chance():
    """A model as good as its verdict is left alone at any of many looks; a fall is found soon."""
    rng = np.random.default_rng(11)
    false, needed = 0, []
    for _ in range(200):
        right = rng.random(3000) < 0.9
        counts = np.arange(50, 3001, 50)
        sums = np.cumsum(right)[counts - 1]
        false += any(
            one.fall > one.chance
            for n, s in zip(counts.tolist(), sums.tolist(), strict=True)
            if (one := judged(_sums(n, s)))
        )
        worse = np.cumsum(rng.random(3000) < 0.8)[counts - 1]
        needed.append(
            next(
                n
                for n, s in zip(counts.tolist(), worse.tolist(), strict=True)
                if judged(_sums(n, s)).fall > judged(_sums(n, s)).chance
            )
        )
    assert false <= 2
    assert np.mean(needed) < 600


def _sums(count, total):
    days = {"m": {"2023-11-14": (count, float(total), float(total))}}
    return OutcomeSums(pipeline="p", days=days)


def test_errors_of_numbers_fall_the_other_way():
    """For an absolute error more is worse."""
    rng = np.random.default_rng(2)
    errors = np.abs(rng.normal(size=2000))
    usual, worse = told(errors), told(errors * 1.5)
    options = {"verdict": 0.8, "lower_is_better": True}

    assert judged(usual, **options).fall < judged(usual, **options).chance
    assert judged(worse, **options).fall > judged(worse, **options).chance
    assert judged(told([1.0] * 49)) is None
