"""What an experiment keeps of a stream of outcomes, and the interval that follows from it."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.experiment import (
    LARGEST,
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    Observed,
    judge,
    update,
)
from ml_control.errors import BadObject

START = ExperimentState(started_at=0.0)
NOBODY = ArmCounts()

shares = st.integers(1, 63).map(lambda k: k / 64)  # exact in binary, and so is 1 minus them
values = st.floats(-1e6, 1e6)


@st.composite
def streams(draw, value=values, least=0):
    """Observations in the log's order, not every offset among them."""
    size = draw(st.integers(least, 60))
    offsets = sorted(draw(st.sets(st.integers(1, 500), min_size=size, max_size=size)))
    return [Observed(at, draw(st.booleans()), draw(shares), draw(value)) for at in offsets]


def judged(state, kind="mean", alpha=0.05):
    """A look from the first outcomes on."""
    question = ExperimentSettings(kind=kind, alpha=alpha, min_samples=1, max_duration=3600.0)
    return judge(state, question, NOBODY, NOBODY, 1.0)


@given(streams(), st.lists(st.integers(0, 60)), st.integers(0, 20))
def test_batches_do_not_matter(stream, cuts, again):
    """Any division into batches, with any delivery repeated, gives the same state bit for bit."""
    whole = update(START, stream)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut <= len(stream))})
    state = START
    for start, end in itertools.pairwise(edges):
        state = update(state, stream[max(0, start - again) : end])
        state = ExperimentState.model_validate_json(state.model_dump_json())  # a crash in between

    assert whole == state
    assert whole == update(state, stream)
    assert whole.to_json() == json.loads(json.dumps(state.to_json()))


@given(streams(least=2))
def test_the_offset_is_of_the_last_observation(stream):
    """The state says how far the log was taken; what is at or below it is passed over."""
    state = update(START, stream)

    assert stream[-1].offset == state.offset
    assert state == update(state, [Observed(state.offset, True, 0.5, 1e6)])
    assert len(stream) == state.champion_samples + state.challenger_samples


@given(streams(least=10), st.sampled_from(["proportion", "mean"]))
def test_swapping_the_arms_negates_the_interval(stream, kind):
    """Neither arm is favoured: with names exchanged the same evidence says the opposite."""
    swapped = [Observed(at, not new, 1.0 - share, value) for at, new, share, value in stream]

    one, other = (judged(update(START, each), kind) for each in (stream, swapped))

    assert (one.low is None) == (other.low is None)
    if one.low is not None:
        assert (-one.estimate, -one.high, -one.low) == (other.estimate, other.low, other.high)
        assert one.low <= one.estimate <= one.high


@given(streams(least=10), st.floats(1e-6, 0.9), st.floats(1e-6, 0.9))
def test_a_wider_alpha_nests(stream, first, second):
    """Whoever accepts more error gets an interval inside that of one who accepts less."""
    state = update(START, stream)
    strict, loose = (judged(state, alpha=alpha) for alpha in sorted((first, second)))

    if strict.low is not None:
        assert strict.low <= loose.low <= loose.high <= strict.high


@given(streams(least=10), st.integers(2, 50))
def test_more_of_the_same_tightens(stream, times):
    """The same moments over more entities give a narrower interval around the same estimate."""
    state = update(START, stream)
    sums = ("score", "information", "squares", "spread")
    more = state.model_copy(update={name: times * getattr(state, name) for name in sums})

    few, many = judged(state), judged(more)

    if few.low is not None:
        assert few.estimate == pytest.approx(many.estimate, rel=1e-9)
        assert many.high - many.low < few.high - few.low


@given(streams(st.integers(-1000, 1000).map(float), least=10), st.integers(-20, 20))
def test_the_unit_of_a_mean_does_not_matter(stream, power):
    """Outcomes in another unit, or from another zero, give the same interval in that unit."""
    unit = 2.0**power

    plain = judged(update(START, stream))
    scaled = judged(update(START, [o._replace(value=unit * o.value) for o in stream]))
    moved = judged(update(START, [o._replace(value=o.value + 4096) for o in stream]))

    if plain.low is not None:
        assert (unit * plain.low, unit * plain.high) == pytest.approx((scaled.low, scaled.high))
        assert (plain.low, plain.high) == pytest.approx((moved.low, moved.high), rel=1e-6, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.02, 0.98)), min_size=2, max_size=6),
    st.floats(-8, 8),
)
def test_the_bound_is_exact_for_every_outcome_and_share(entities, tilt):
    """Over all assignments with their probabilities, E exp(L S - L² V / 2) is at most 1.

    This is the inequality that the interval rests on, checked by counting, not by simulation.
    """
    total = 0.0
    for arms in itertools.product((False, True), repeat=len(entities)):
        pairs = list(zip(arms, entities, strict=True))
        state = update(
            START, [Observed(at, new, w, y) for at, (new, (y, w)) in enumerate(pairs, start=1)]
        )
        variance = (state.squares + 2 * state.spread) / 3
        probability = math.prod(w if new else 1 - w for new, (_, w) in pairs)
        total += probability * math.exp(tilt * state.score - tilt**2 * variance / 2)

    assert total <= 1 + 1e-9


@pytest.mark.parametrize(
    "wrong",
    [math.nan, math.inf, -math.inf, 2 * LARGEST, -2 * LARGEST, "1", None, [1.0], 10**400, 1j],
)
def test_a_value_that_is_no_number_is_refused(wrong):
    """The refusal names the offset, none of its batch is taken, and the state goes on without."""
    good = [Observed(1, True, 0.5, 1.0), Observed(3, False, 0.5, 0.0)]
    before = update(START, good[:1])

    with pytest.raises(BadObject) as caught:
        update(before, [Observed(2, False, 0.5, wrong), good[1]])

    assert "observation 2" == caught.value.object
    assert 2 == caught.value.detail["offset"]
    assert "drop" in caught.value.next
    assert update(START, good) == update(before, good)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1, 1.1, "0.5", None])
def test_a_share_outside_of_0_and_1_is_refused(wrong):
    """No probability, no evidence."""
    with pytest.raises(BadObject, match="share"):
        update(START, [Observed(1, True, wrong, 1.0)])


@pytest.mark.parametrize("value", [True, False, 0, 1])
def test_outcomes_may_be_true_or_whole(value):
    """JSON's true and 1 count as 1.0."""
    one, other = (update(START, [Observed(1, True, 0.5, v)]) for v in (value, float(value)))

    assert one == other


@given(streams(least=4), st.floats(-1e6, 1e6))
def test_an_arm_with_all_of_the_traffic_says_nothing(stream, value):
    """With a share of 0 or 1 there was nothing to compare with: such outcomes are passed over."""
    spread = [o._replace(offset=3 * o.offset) for o in stream]
    alone = [
        Observed(3 * o.offset + 1 + new, bool(new), float(new), value)
        for o in stream
        for new in (0, 1)
    ]

    mixed = update(START, sorted([*spread, *alone], key=lambda o: o.offset))

    assert update(START, spread).model_copy(update={"offset": mixed.offset}) == mixed
    assert alone[-1].offset == mixed.offset


@pytest.mark.parametrize(("new", "share"), [(True, 0.0), (False, 1.0)])
def test_an_arm_without_a_share_cannot_have_an_outcome(new, share):
    """An entity on an arm that had no traffic was routed past the rollout: refused."""
    with pytest.raises(BadObject, match="had no share"):
        update(START, [Observed(1, new, share, 1.0)])
