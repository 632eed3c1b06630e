"""Thousands of seeded experiments with a look after every observation: how often they are wrong.

The experiments run side by side in arrays, with the same operations in the same order as the code;
that both agree to the last bit is itself a test here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import pytest

from ml_control.core.experiment import (
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    Observed,
    judge,
    update,
)
from ml_control.core.experiment.counts import (
    _ABOVE,
    _BOTH_WAYS,
    ALPHA_GUARDRAIL,
    ALPHA_SPLIT,
    guardrails,
    split_probability,
)

TESTS = 2000
ALPHA = 0.05
ARMS = 2 * (ArmCounts(entities=500, expected_entities=500, requests=900, errors=2, slow=1),)


def upper_bound(tests, rate):
    """The number of cases that fewer than one in twenty batches of tests at this rate exceed."""
    below, k, probability = 0.0, -1, (1 - rate) ** tests
    while below < 0.95:
        k += 1
        below += probability
        probability *= (tests - k) / (k + 1) * rate / (1 - rate)
    return k


def asked(min_samples=50, kind="mean", **changed):
    """The question that is simulated."""
    return ExperimentSettings(
        kind=kind, alpha=ALPHA, min_samples=min_samples, max_duration=1e9, **changed
    )


@dataclass
class Side:
    """Experiments side by side, each looked at after each of its observations."""

    tests: int
    min_samples: int
    keep: int = 0  # how many are recorded, to be done again by the code itself
    seen: int = 0
    records: list = field(default_factory=list)

    def __post_init__(self):
        self.champions, self.challengers = (np.zeros(self.tests, np.int64) for _ in range(2))
        self.score, self.squares, self.spread, self.centre = np.zeros((4, self.tests))
        self.sums = np.zeros((2, self.tests))
        self.information, self.marks, self.mixed = 0.0, [], np.zeros(self.tests)
        self.decided, self.when = np.zeros((2, self.tests), np.int64)
        self.judged, self.reach = np.zeros(self.tests, bool), np.zeros(self.tests)

    def observe(self, challenger, share, value):
        """One entity in each experiment: its arm and outcome ``(tests,)``, the share of all."""
        if self.keep:
            kept = slice(self.keep)
            self.records.append((challenger[kept].copy(), share, value[kept].copy()))
        self.seen += 1
        self.challengers += challenger
        self.champions += ~challenger
        self.sums[0] += np.where(challenger, 0.0, value)
        self.sums[1] += np.where(challenger, value, 0.0)
        if self.seen == 1:
            self.centre = value.astype(float)
            return
        variance = share * (1.0 - share)
        away = value - self.centre
        step = np.where(challenger, 1.0 - share, -share) * away
        self.score += step
        self.squares += step * step
        self.spread += variance * (away * away)
        self.information += variance
        if self.information >= 2.0 ** len(self.marks):
            self.marks.append(self.spread.copy())
        self.centre = self.centre + away / min(self.seen, 1000)
        self._look()

    def _look(self):
        wanted = self.min_samples / 2.0
        first = max(0, math.floor(math.log2(wanted)) - 1)
        for place in range(first, len(self.marks)):
            if (self.mixed == 0.0).any():
                scaled = 0.5 * self.marks[place] * wanted / 2.0**place
                self.mixed = np.where(self.mixed == 0.0, scaled, self.mixed)
        enough = np.minimum(self.champions, self.challengers) >= self.min_samples
        self.judged = enough & (self.mixed > 0.0)
        if not self.judged.any():
            return
        mixed = np.where(self.mixed > 0.0, self.mixed, 1.0)
        variance = (self.squares + 2.0 * np.maximum(self.squares, self.spread)) / 3.0
        growth = np.log(variance + mixed) - np.log(mixed) - 2.0 * math.log(ALPHA)
        self.reach = np.sqrt((variance + mixed) * growth)
        found = np.where(self.score > self.reach, 1, np.where(self.score < -self.reach, -1, 0))
        fresh = self.judged & (self.decided == 0) & (found != 0)
        self.decided[fresh], self.when[fresh] = found[fresh], self.seen

    def misses(self, apart, share):
        """Whether the interval of a proportion leaves the true difference out ``(tests,)``."""
        if not self.judged.any():
            return self.judged
        rate = self.sums.sum(axis=0) / self.seen
        more = (1 - 2 * rate) * (1 - 2 * share) * apart - share * (1 - share) * apart**2
        spread = np.maximum(self.squares, self.spread + np.maximum(0, more) * self.information)
        mixed = np.where(self.mixed > 0.0, self.mixed, 1.0)
        total = (self.squares + 2 * spread) / 3 + mixed
        reach = np.sqrt(total * (np.log(total / mixed) - 2 * math.log(ALPHA)))
        return self.judged & (np.abs(self.score - apart * self.information) > reach)

    def streams(self):
        """What the kept experiments observed, as the code takes it."""
        for one in range(self.keep):
            yield [
                Observed(at, bool(new[one]), share, float(value[one]))
                for at, (new, share, value) in enumerate(self.records, start=1)
            ]

    @property
    def promoted(self):
        """How many experiments ended in a promotion."""
        return int((self.decided == 1).sum())

    @property
    def rolled_back(self):
        """How many ended in a rollback."""
        return int((self.decided == -1).sum())

    @property
    def estimates(self):
        """Challenger minus champion, as the code estimates it."""
        return self.score / self.information

    @property
    def plain(self):
        """The plain difference of the arms' means."""
        return self.sums[1] / self.challengers - self.sums[0] / self.champions


def simulated(draw, share, entities, min_samples=50, tests=TESTS, keep=0, seed=20261124):
    """Experiments of independent entities: ``draw(rng, i, challenger)`` gives their outcomes."""
    rng = np.random.default_rng(seed)
    side = Side(tests, min_samples, keep)
    for i in range(entities):
        w = share(i)
        challenger = rng.random(tests) < w
        side.observe(challenger, w, draw(rng, i, challenger))
    return side


def rates(champion, challenger=None):
    """Outcomes 0 and 1 at rates that may depend on the entity's number."""
    challenger = challenger or champion

    def draw(rng, i, new):
        return (rng.random(len(new)) < np.where(new, challenger(i), champion(i))).astype(float)

    return draw


def always(value):
    """The same for every entity."""
    return lambda i: value


def drifting(i):
    """An outcome's rate that moves from 10 % to 70 % over 1,500 entities."""
    return 0.1 + 0.6 * i / 1500


def stepped(i):
    """A share that is raised while the experiment runs."""
    return 0.05 if i < 500 else 0.25 if i < 800 else 0.6


def skewed(rng, i, new):
    """Amounts of which few are large."""
    return rng.lognormal(0.0, 1.0, len(new))


def heavy(rng, i, new):
    """Amounts without a mean or variance at all."""
    return rng.standard_cauchy(len(new))


def unequal(rng, i, new):
    """Equal means: the challenger's outcomes vary three times as much."""
    return rng.normal(5.0, np.where(new, 3.0, 1.0))


def assert_alpha_holds(side):
    """Wrong decisions of both kinds together stay below the bound of alpha."""
    assert side.promoted + side.rolled_back <= upper_bound(side.tests, ALPHA)


@pytest.mark.parametrize(
    ("draw", "share", "min_samples"),
    [
        pytest.param(rates(always(0.5)), always(0.5), 50, id="even"),
        pytest.param(rates(always(0.9)), always(0.5), 5, id="judged-from-5"),
        pytest.param(rates(always(0.05)), always(0.1), 10, id="rare-and-uneven"),
        pytest.param(rates(always(0.95)), always(0.9), 10, id="mostly-challenger"),
        pytest.param(rates(drifting), stepped, 25, id="weights-and-drift"),
        pytest.param(skewed, always(0.2), 25, id="skewed-mean"),
        pytest.param(heavy, always(0.5), 25, id="no-variance"),
        pytest.param(unequal, always(0.1), 50, id="equal-means-unequal-spread"),
    ],
)
def test_without_a_difference_wrong_decisions_are_rarer_than_alpha(draw, share, min_samples):
    """A look after each of 1,500 entities in 2,000 experiments: alpha holds over all looks."""
    side = simulated(draw, share, 1500, min_samples)

    assert_alpha_holds(side)
    assert side.judged.any()


@pytest.mark.parametrize("kind", ["mean", "proportion"])
def test_the_simulation_is_the_code(kind):
    """Statistics agree to the last bit, and the decisions fall at the same observations."""
    arms = rates(drifting, lambda i: drifting(i) + 0.12)
    side = simulated(arms, stepped, 1500, min_samples=20, tests=24, keep=24)
    question, start = asked(20, kind=kind), ExperimentState(started_at=0.0)

    assert {0, 1} <= set(side.decided)
    for one, stream in enumerate(side.streams()):
        state = update(start, stream)
        names = ("score", "squares", "spread", "centre")
        assert [float(getattr(side, n)[one]) for n in names] == [getattr(state, n) for n in names]
        assert side.information == state.information
        end = int(side.when[one]) or len(stream)
        before = update(start, stream[: end - 1])
        at_it = update(before, stream[end - 1 : end])
        said = {1: "promote", -1: "roll_back", 0: "continue"}[int(side.decided[one])]
        assert "continue" == judge(before, question, *ARMS, 1.0).decision
        assert said == judge(at_it, question, *ARMS, 1.0).decision


def test_correlated_requests_of_an_entity_are_one_observation():
    """Entities that send up to 50 requests with much the same outcome do not mislead.

    Taken request by request, the same log decides wrongly several times as often as alpha allows.
    """
    rng = np.random.default_rng(1)
    activity = rng.zipf(1.4, 500).clip(max=50)
    log = rng.permutation(np.repeat(np.arange(500), activity))
    of_entity = rng.random((500, TESTS)) < 0.5
    rate = rng.beta(0.3, 0.3, (500, TESTS))
    by_entity, by_request, seen = Side(TESTS, 50), Side(TESTS, 50), set()
    for entity in log:
        outcome = (rng.random(TESTS) < rate[entity]).astype(float)
        by_request.observe(of_entity[entity], 0.5, outcome)
        if entity not in seen:
            seen.add(entity)
            by_entity.observe(of_entity[entity], 0.5, outcome)

    assert 5 * len(seen) < len(log)
    assert_alpha_holds(by_entity)
    assert by_entity.promoted + by_entity.rolled_back
    assert by_request.promoted + by_request.rolled_back > 2 * upper_bound(TESTS, ALPHA)


def test_changed_weights_and_a_drift_are_no_difference():
    """The estimate stays at nothing where the plain difference of means is far off."""
    side = simulated(rates(drifting), stepped, 1500, tests=500)

    error = side.estimates.std() / math.sqrt(500)
    assert abs(side.estimates.mean()) < 4 * error
    assert side.plain.mean() > 0.1


def test_fallback_answers_count_for_the_assigned_arm():
    """A challenger that fails on hard entities, which the champion then answers, gains nothing.

    Counted by who answered, it would shed its worst outcomes and be promoted falsely.
    """
    rng = np.random.default_rng(2)
    assigned, answered = Side(TESTS, 50), Side(TESTS, 50)
    for _ in range(1500):
        challenger = rng.random(TESTS) < 0.5
        hard = rng.random(TESTS) < 0.2
        value = (rng.random(TESTS) < np.where(hard, 0.2, 0.8)).astype(float)
        assigned.observe(challenger, 0.5, value)
        answered.observe(challenger & ~hard, 0.5, value)

    assert_alpha_holds(assigned)
    assert assigned.promoted + assigned.rolled_back
    assert answered.promoted > TESTS / 2


@pytest.mark.parametrize("share", [0.5, 0.2])
@pytest.mark.parametrize("better", [True, False])
def test_with_a_difference_it_finds_the_winner(share, better):
    """At the design effect nearly all end on the right side, in 1.4 times the samples of a fixed
    test with 80 % power; at twice the effect in 0.6 times.
    """
    tests, min_samples = 400, 50
    fixed = 4 * min_samples / min(share, 1 - share)
    needed = (NormalDist().inv_cdf(1 - ALPHA / 2) + NormalDist().inv_cdf(0.8)) ** 2
    effect = math.sqrt(needed * 0.25 / (fixed * share * (1 - share)))

    for times, goal in ((1, 1.4), (2, 0.6)):
        moved = 0.5 + times * effect * (1 if better else -1)
        draw = rates(always(0.5), always(moved))
        side = simulated(draw, always(share), int(5 * fixed), min_samples, tests)
        right, wrong = side.promoted, side.rolled_back
        if not better:
            right, wrong = wrong, right

        assert right >= 0.99 * tests
        assert wrong <= ALPHA * tests / 10
        assert np.where(side.when, side.when, 5 * fixed).mean() <= goal * fixed


@pytest.mark.parametrize(
    ("champion", "challenger", "share", "min_samples"),
    [
        (0.25, 0.4, 0.3, 50),
        (0.98, 0.9, 0.1, 20),  # two of twenty, or none yet, on a small arm
        (0.98, 0.97, 0.5, 100),
        (0.1, 0.02, 0.9, 50),
    ],
)
def test_the_interval_holds_at_all_looks(champion, challenger, share, min_samples):
    """In 2,000 experiments the true difference is outside at some look in at most alpha of them.

    With that difference as the margin, these would be the false promotions and rollbacks.
    """
    rng, apart = np.random.default_rng(3), challenger - champion
    side, missed = Side(TESTS, min_samples, keep=20), np.zeros(TESTS, bool)
    for _ in range(1500):
        new = rng.random(TESTS) < share
        value = (rng.random(TESTS) < np.where(new, challenger, champion)).astype(float)
        side.observe(new, share, value)
        missed |= side.misses(apart, share)

    assert missed.sum() <= upper_bound(TESTS, ALPHA)
    for one, stream in enumerate(side.streams()):  # the code says the same
        question = asked(min_samples, kind="proportion")
        found = judge(update(ExperimentState(started_at=0.0), stream), question, *ARMS, 1.0)
        for apart_by in (apart, found.low - 1e-6, found.high + 1e-6):
            said = not found.low <= apart_by <= found.high
            assert bool(side.misses(apart_by, share)[one]) == said


def looked_at(counts, trials, rate, tilts):
    """The counts' evidence at all looks: like the code, over arrays ``(..., looks)``."""
    logs = np.stack([L * counts - trials * np.log1p(rate * np.expm1(L)) for L in tilts])
    most = logs.max(axis=0)
    return most + np.log(np.exp(logs - most).mean(axis=0))


@pytest.mark.parametrize(("rate", "limit"), [(0.01, 0.01), (0.2, 0.2), (0.004, 0.01)])
def test_a_guardrail_at_its_limit_is_rarely_breached(rate, limit):
    """Looked at after each of 1,500 requests: at most as often as its level says."""
    rng = np.random.default_rng(4)
    counts = np.cumsum(rng.random((TESTS, 1500)) < rate, axis=1)
    trials = np.arange(1, 1501)

    evidence = looked_at(counts, trials, limit, _ABOVE)
    breached = (evidence >= -math.log(ALPHA_GUARDRAIL)) & (counts > limit * trials)

    assert breached.any(axis=1).sum() <= upper_bound(TESTS, ALPHA_GUARDRAIL)
    for one in range(0, TESTS, 100):  # the code says the same
        at = int(breached[one].argmax()) if breached[one].any() else 1499
        errors, requests = int(counts[one, at]), int(trials[at])
        found = guardrails(asked(error_rate=limit), ArmCounts(requests=requests, errors=errors))
        assert bool(breached[one, at]) == ("breached" == found["error_rate"])


def test_a_challenger_beyond_its_limit_is_caught():
    """At three times the limit of 1 %, nearly all are caught, most of them within 700 requests."""
    counts = np.cumsum(np.random.default_rng(5).random((500, 3000)) < 0.03, axis=1)
    evidence = looked_at(counts, np.arange(1, 3001), 0.01, _ABOVE)
    caught = evidence >= -math.log(ALPHA_GUARDRAIL)

    assert caught.any(axis=1).mean() > 0.99
    assert np.median(caught.argmax(axis=1)) < 700


def test_a_split_as_intended_is_rarely_called_uneven():
    """Shares are raised meanwhile, and each of 1,500 entities is looked at: at most one of 1,000
    experiments is halted.
    """
    rng = np.random.default_rng(6)
    share = np.array([stepped(i) for i in range(1500)])
    intended = rng.random((TESTS, 1500)) < share
    entities, expected = np.arange(1, 1501), np.cumsum(share)

    counts = np.cumsum(intended, axis=1)
    evidence = looked_at(counts, entities, expected / entities, _BOTH_WAYS)

    assert (evidence.max(axis=1) >= -math.log(ALPHA_SPLIT)).sum() <= upper_bound(TESTS, ALPHA_SPLIT)
    for one in range(0, TESTS, 200):
        new = int(counts[one, -1])
        arms = (
            ArmCounts(entities=1500 - new, expected_entities=1500 - expected[-1]),
            ArmCounts(entities=new, expected_entities=expected[-1]),
        )
        assert split_probability(*arms) == pytest.approx(min(1.0, math.exp(-evidence[one, -1])))


def test_lost_entities_are_found():
    """When one in six of the challenger's entities is lost, most experiments are halted in time."""
    rng = np.random.default_rng(7)
    lost = rng.random((200, 6000)) < 0.5 * 5 / 6 / (0.5 + 0.5 * 5 / 6)
    entities = np.arange(1, 6001)

    evidence = looked_at(np.cumsum(lost, axis=1), entities, 0.5, _BOTH_WAYS)

    assert ((evidence >= -math.log(ALPHA_SPLIT / 2)).any(axis=1)).mean() > 0.9
