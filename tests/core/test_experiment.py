"""An experiment is decided by evidence: what is taken, refused, and needed for a decision."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.experiment import (
    LARGEST,
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    Judgement,
    Observed,
    judge,
    reachable,
    update,
)
from ml_control.errors import BadObject

START = ExperimentState(started_at=1000.0)
QUESTION = ExperimentSettings(
    kind="proportion",
    alpha=0.05,
    min_samples=50,
    max_duration=3600.0,
    error_rate=0.01,
    latency_p99=0.2,
)
HEALTHY = ArmCounts(entities=500, expected_entities=500, requests=900, errors=2, slow=1)

shares = st.integers(1, 63).map(lambda k: k / 64)  # exact in binary, and so is 1 minus them
values = st.floats(-1e6, 1e6)


@st.composite
def streams(draw, value=values, least=0):
    """Observations in the log's order, not every offset among them."""
    size = draw(st.integers(least, 60))
    offsets = sorted(draw(st.sets(st.integers(1, 500), min_size=size, max_size=size)))
    return [Observed(at, draw(st.booleans()), draw(shares), draw(value)) for at in offsets]


def seeded(champion, challenger, entities=1000, share=0.5, seed=7):
    """Entities with outcomes at these rates."""
    rng = random.Random(seed)
    found = []
    for at in range(1, entities + 1):
        new = rng.random() < share
        found.append(
            Observed(at, new, share, float(rng.random() < (challenger if new else champion)))
        )
    return found


def judged(state, question=QUESTION, champion=HEALTHY, challenger=HEALTHY, now=1060.0):
    """A look at one minute, with healthy counts unless told."""
    return judge(state, question, champion, challenger, now)


def asked(**changed):
    """The question with other settings."""
    return QUESTION.model_copy(update=changed)


BETTER = update(START, seeded(0.5, 0.7))
WORSE = update(START, seeded(0.7, 0.5))
SAME = update(START, seeded(0.5, 0.5))


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
    question = asked(kind=kind, min_samples=1)
    swapped = [Observed(at, not new, 1.0 - share, value) for at, new, share, value in stream]

    one, other = (judged(update(START, each), question) for each in (stream, swapped))

    assert (one.low is None) == (other.low is None)
    if one.low is not None:
        assert (-one.estimate, -one.high, -one.low) == (other.estimate, other.low, other.high)
        assert one.low <= one.estimate <= one.high


@given(streams(least=10), st.floats(1e-6, 0.9), st.floats(1e-6, 0.9))
def test_a_wider_alpha_nests(stream, first, second):
    """Whoever accepts more error gets an interval inside that of one who accepts less."""
    state = update(START, stream)
    strict, loose = (
        judged(state, asked(kind="mean", min_samples=1, alpha=alpha))
        for alpha in sorted((first, second))
    )

    if strict.low is not None:
        assert strict.low <= loose.low <= loose.high <= strict.high


@given(streams(least=10), st.integers(2, 50))
def test_more_of_the_same_tightens(stream, times):
    """The same moments over more entities give a narrower interval around the same estimate."""
    question = asked(kind="mean", min_samples=1)
    state = update(START, stream)
    sums = ("score", "information", "squares", "spread")
    more = state.model_copy(update={name: times * getattr(state, name) for name in sums})

    few, many = judged(state, question), judged(more, question)

    if few.low is not None:
        assert few.estimate == pytest.approx(many.estimate, rel=1e-9)
        assert many.high - many.low < few.high - few.low


@given(streams(st.integers(-1000, 1000).map(float), least=10), st.integers(-20, 20))
def test_the_unit_of_a_mean_does_not_matter(stream, power):
    """Outcomes in another unit, or from another zero, give the same interval in that unit."""
    question = asked(kind="mean", min_samples=1)
    unit = 2.0**power

    plain = judged(update(START, stream), question)
    scaled = judged(update(START, [o._replace(value=unit * o.value) for o in stream]), question)
    moved = judged(update(START, [o._replace(value=o.value + 4096) for o in stream]), question)

    if plain.low is not None:
        assert (unit * plain.low, unit * plain.high) == pytest.approx((scaled.low, scaled.high))
        assert (plain.low, plain.high) == pytest.approx((moved.low, moved.high), rel=1e-6, abs=1e-6)


@settings(max_examples=40)
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


def test_a_better_challenger_is_promoted():
    """Outcomes that are surely better, with all guardrails healthy."""
    found = judged(BETTER)

    assert "promote" == found.decision
    assert 0 < found.low < 0.2 < found.high
    assert "the challenger is better" in found.because
    assert {"error_rate": "healthy", "latency_p99": "healthy"} == found.guardrails
    assert 1000 == sum(found.samples.values())
    assert found.means["champion"] < 0.6 < found.means["challenger"]
    assert 1.0 == found.srm
    assert found == Judgement.model_validate_json(found.model_dump_json())


def test_a_worse_challenger_is_rolled_back():
    """Outcomes that are surely worse roll back, healthy or not."""
    assert "roll_back" == judged(WORSE).decision
    assert (
        "roll_back"
        == judged(WORSE, challenger=ArmCounts(entities=500, expected_entities=500)).decision
    )


def test_without_a_difference_it_goes_on():
    """Undecided is said with the interval that it is undecided about."""
    found = judged(SAME)

    assert "continue" == found.decision
    assert found.low < 0 < found.high
    assert f"within {found.low:.4g} and {found.high:.4g}" in found.because


def test_lower_may_be_better():
    """For an error or a cost the same evidence decides the other way; its sign stays."""
    question = asked(higher_is_better=False)

    assert "roll_back" == judged(BETTER, question).decision
    assert "promote" == judged(WORSE, question).decision
    assert judged(WORSE).high == judged(WORSE, question).high < 0


def test_a_margin_allows_for_being_no_worse():
    """With a margin a challenger need not be better: not worse by more than it is enough."""
    state = update(START, seeded(0.5, 0.49, entities=4000))
    slightly_worse = update(START, seeded(0.6, 0.5, entities=4000))

    assert "continue" == judged(state).decision
    assert "promote" == judged(state, asked(margin=0.15)).decision
    assert "roll_back" == judged(slightly_worse).decision
    assert judged(slightly_worse).high < 0
    assert "promote" == judged(slightly_worse, asked(margin=0.25)).decision
    assert "by more than the margin 0.02" in judged(slightly_worse, asked(margin=0.02)).because


def test_few_outcomes_decide_nothing():
    """However large the difference: each arm needs min_samples entities with an outcome."""
    stream = seeded(0.0, 1.0, entities=200)
    counts = itertools.accumulate(o.challenger for o in stream)
    last = next(at for at, new in enumerate(counts, 1) if min(new, at - new) == 50)

    before, after = (judged(update(START, stream[:at])) for at in (last - 1, last))

    assert ("continue", "promote") == (before.decision, after.decision)
    assert "each arm needs 50 outcomes" in before.because
    assert 0 < before.low < before.high


def test_equal_outcomes_decide_nothing():
    """When every outcome was the same there is no difference and no measure of chance."""
    found = judged(update(START, seeded(1.0, 1.0)))

    assert ("continue", None) == (found.decision, found.low)
    assert {"champion": 1.0, "challenger": 1.0} == found.means


def test_before_the_first_outcome():
    """An experiment that has just begun is judged too: everything is unknown."""
    found = judged(START, champion=ArmCounts(), challenger=ArmCounts(), now=1000.0)

    assert "continue" == found.decision
    assert (None, None, None) == (found.estimate, found.srm, found.means["champion"])
    assert {"error_rate": "unknown", "latency_p99": "unknown"} == found.guardrails


def test_too_long_is_inconclusive():
    """After max_duration what is undecided ends without a winner; what is decided is decided."""
    late = 1000.0 + QUESTION.max_duration

    assert "inconclusive" == judged(SAME, now=late).decision
    assert "continue" == judged(SAME, now=late - 1).decision
    assert "inconclusive" == judged(START, now=late).decision
    assert "max_duration" in judged(START, now=late).because
    assert "promote" == judged(BETTER, now=late).decision


def test_a_clock_set_back_changes_no_decision():
    """A look before the start, by the clock, is a look at an experiment that has just begun."""
    assert "continue" == judged(SAME, now=-1e9).decision
    assert "promote" == judged(BETTER, now=-1e9).decision


@pytest.mark.parametrize("now", [math.nan, math.inf])
def test_a_time_that_is_none_is_refused(now):
    """A clock that gives no number must not make an experiment immortal."""
    with pytest.raises(BadObject, match="time"):
        judged(SAME, now=now)


@pytest.mark.parametrize(
    ("changed", "name"), [({"errors": 60}, "error_rate"), ({"slow": 60}, "latency_p99")]
)
def test_a_breached_guardrail_rolls_back(changed, name):
    """Whatever the outcomes say, and whatever is wrong with the split."""
    bad = HEALTHY.model_copy(update=changed)
    uneven = bad.model_copy(update={"entities": 900})
    lacking = HEALTHY.model_copy(update={"entities": 100})

    for found in (judged(BETTER, challenger=bad), judged(BETTER, QUESTION, lacking, uneven)):
        assert "roll_back" == found.decision
        assert name in found.because
        assert "breached" == found.guardrails[name]


def test_missing_data_is_never_healthy():
    """A guardrail without a single request holds a promotion up, until time is over."""
    silent = ArmCounts(entities=500, expected_entities=500)
    found = judged(BETTER, challenger=silent)

    assert "continue" == found.decision
    assert "not known to be within: error_rate, latency_p99" in found.because
    assert "inconclusive" == judged(BETTER, challenger=silent, now=1e6).decision
    without = asked(error_rate=None, latency_p99=None)
    assert ("promote", {}) == (
        judged(BETTER, without, challenger=silent).decision,
        judged(BETTER, without, challenger=silent).guardrails,
    )


def test_above_its_limit_is_not_healthy_before_it_is_proven():
    """12 errors of 900 are more than 1 %, and may be chance: neither promoted nor rolled back."""
    found = judged(BETTER, challenger=HEALTHY.model_copy(update={"errors": 12}))

    assert ("continue", "unknown") == (found.decision, found.guardrails["error_rate"])


def test_one_bad_request_that_is_retried_is_no_breach():
    """Total failure is seen within some requests, but not in three retries of the first."""

    def first(n):
        return judged(
            START, champion=ArmCounts(), challenger=ArmCounts(requests=n, errors=n)
        ).decision

    assert "continue" == first(3)
    assert "roll_back" == first(8)


def test_no_error_allowed_means_none():
    """With a limit of 0 the first error is a breach; with a limit of 1 nothing is."""
    bad = HEALTHY.model_copy(update={"errors": 1})

    assert "roll_back" == judged(BETTER, asked(error_rate=0.0), challenger=bad).decision
    assert (
        "promote"
        == judged(
            BETTER, asked(error_rate=0.0), HEALTHY, HEALTHY.model_copy(update={"errors": 0})
        ).decision
    )
    every = HEALTHY.model_copy(update={"errors": 900})
    assert "promote" == judged(BETTER, asked(error_rate=1.0), challenger=every).decision


def test_an_uneven_split_compares_nothing():
    """Entities that do not arrive in the intended shares: a person must look, at any outcome."""
    lacking = HEALTHY.model_copy(update={"entities": 380})
    many = HEALTHY.model_copy(update={"entities": 620})

    for state in (BETTER, WORSE, SAME, START):
        found = judged(state, QUESTION, many, lacking)
        assert "inconclusive" == found.decision
        assert found.srm < 0.001
        assert "not split as intended" in found.because


def test_a_split_by_its_own_shares_is_even():
    """What is intended is the sum of the shares in force, not a half."""
    few = ArmCounts(entities=110, expected_entities=100, requests=200)
    most = ArmCounts(entities=890, expected_entities=900, requests=1600)
    state = update(START, seeded(0.5, 0.5, share=0.1))

    as_halves = [arm.model_copy(update={"expected_entities": 500.0}) for arm in (most, few)]

    assert "continue" == judged(state, QUESTION, most, few).decision
    assert "inconclusive" == judged(state, QUESTION, *as_halves).decision


def test_outcomes_lost_on_one_arm_compare_nothing():
    """Entities are split evenly and a third of one arm's outcomes never come: not a fair sample."""
    kept = [o for at, o in enumerate(seeded(0.5, 0.7, entities=2000)) if not o.challenger or at % 3]
    found = judged(update(START, kept))

    assert "inconclusive" == found.decision
    assert "entities with an outcome are not split" in found.because


@pytest.mark.parametrize(
    ("champion", "challenger"),
    [
        (HEALTHY, HEALTHY.model_copy(update={"expected_entities": 300.0})),
        (HEALTHY, HEALTHY.model_copy(update={"errors": 901})),
        (HEALTHY, HEALTHY.model_copy(update={"slow": 901})),
    ],
)
def test_counts_that_contradict_each_other_are_refused(champion, challenger):
    """Shares that add up to other entities, more errors than requests: nothing is decided."""
    with pytest.raises(BadObject):
        judged(BETTER, QUESTION, champion, challenger)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_entities_of_times_without_a_split_are_no_mismatch(share):
    """While one arm had all of the traffic, all entities on it are as intended."""
    all_of_it = ArmCounts(entities=10_000, expected_entities=10_000)
    arms = (all_of_it, ArmCounts()) if share == 0.0 else (ArmCounts(), all_of_it)

    found = judge(START, asked(error_rate=None, latency_p99=None), *arms, 1000.0)

    assert ("continue", 1.0) == (found.decision, found.srm)


def test_rates_differ_by_one_at_most():
    """The interval of a proportion is never beyond what rates can be."""
    found = judged(update(START, seeded(0.0, 1.0, entities=60)), asked(min_samples=2))

    assert found.high <= 1.0
    assert found.low >= -1.0


def test_what_cannot_be_reached_is_said():
    """The check names both numbers, what the time brings and what it would take."""
    question = asked(min_samples=500, max_duration=14 * 86400.0)

    assert reachable(question, 1.0, 0.5) is None
    said = reachable(question, 20 / 86400, 0.25)
    assert "500" in said
    assert "14 days" in said
    assert "brings 70" in said
    assert "100 days" in said
    assert "no entity with an outcome" in reachable(question, 0.0, 0.5)
    assert "nothing to compare" in reachable(question, 1.0, 1.0)
    assert reachable(question, math.nan, 0.5)


@given(st.floats(1e-6, 10), st.floats(0.01, 0.99), st.integers(1, 10**6))
def test_reachable_is_a_matter_of_the_smaller_arm(rate, share, wanted):
    """Reachable exactly when the smaller arm's entities in max_duration are enough."""
    question = asked(min_samples=wanted, max_duration=86400.0)
    enough = rate * min(share, 1 - share) * 86400.0 >= wanted

    assert enough == (reachable(question, rate, share) is None)


def test_it_starts_without_heavy_libraries():
    """The decision path imports neither numpy nor any other library of data."""
    heavy = ["numpy", "pandas", "polars", "xgboost", "scipy", "dagster"]
    program = (
        "import sys; import ml_control.core.experiment; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert "[]\n" == done.stdout, done.stderr
