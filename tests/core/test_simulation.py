"""Policies replayed: the same settings give what they gave, others what they would have given."""

from __future__ import annotations

import random
from functools import partial
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.experiment import (
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    Observed,
    judge,
    update,
)
from ml_control.core.records import Dataset, DatasetPart
from ml_control.core.retraining import Measured
from ml_control.core.simulation import Happening, replay_experiment, replay_trainings
from ml_control.spec import Retrain

P = "flowers"
HOUR = 3600.0


def part(day, rows=100, version="1"):
    return DatasetPart(
        partition=f"2026-01-{day:02d}", digest=f"{day}-{version}", path="", rows=rows
    )


def published(at, day, rows=100, version="1"):
    found = part(day, rows, version)
    return Happening(at, "published", part=found, partition=found.partition)


def replayed(happenings, *, window=90, duration=60.0, until=1e9, **policy):
    return list(
        replay_trainings(
            P,
            happenings,
            Retrain.model_validate(policy),
            window=window,
            duration=lambda _: duration,
            new_rows=lambda known, now: now.rows - (known.rows if known else 0),
            until=until,
        )
    )


def digest(*parts):
    return Dataset(pipeline=P, parts=parts).digest


def test_each_publication_is_trained_on_when_nothing_makes_it_wait():
    """Three days, three trainings, each of all data until then, at the moment of publication."""
    days = [published(1e6 + i * HOUR, i + 1) for i in range(3)]

    found = replayed(days)

    assert [1e6, 1e6 + HOUR, 1e6 + 2 * HOUR] == [one.at for one in found]
    assert digest(part(1), part(2), part(3)) == found[-1].dataset
    assert [100, 100, 100] == [one.new_rows for one in found]


def test_a_larger_bound_trains_less_often():
    """With 250 new rows asked for, the third day of 100 is the first that trains."""
    days = [published(1e6 + i * HOUR, i + 1) for i in range(6)]

    found = replayed(days, min_new_rows=250)

    assert [1e6 + 2 * HOUR, 1e6 + 5 * HOUR] == [one.at for one in found]


def test_what_is_published_during_a_training_is_trained_on_after_it():
    """One in flight, and exactly one follow-up with all that came meanwhile."""
    days = [published(1e6 + i * 10, i + 1) for i in range(4)]

    found = replayed(days, duration=600.0)

    assert [1e6, 1e6 + 600.0] == [one.at for one in found]
    assert digest(*(part(i) for i in range(1, 5))) == found[-1].dataset


def test_the_policy_wakes_itself():
    """Quiet, cooldown and schedule end between happenings, and the training is at that time."""
    days = [published(1e6, 1), published(1e6 + 10, 2)]

    assert [1e6 + 40.0] == [one.at for one in replayed(days, quiet="30 s")]
    cooled = replayed(days, cooldown="1 h", duration=1.0)
    assert [1e6, 1e6 + HOUR] == [one.at for one in cooled]
    scheduled = replayed(days[:1], every="1 d", until=1e6 + 2.5 * 86400)
    assert [1e6, 1e6 + 86400.0, 1e6 + 2 * 86400.0] == [x.at for x in scheduled]


def test_what_is_on_its_way_is_waited_for():
    """An object that arrived and is not published yet makes the others wait, but not for ever."""
    coming = Happening(1e6 - 1, "arrived", partition="2026-01-02")
    days = [coming, published(1e6, 1), published(1e6 + 50, 2)]

    assert [1e6 + 50] == [one.at for one in replayed(days)]
    assert 1e6 + 20 == replayed(days, max_wait="20 s")[0].at


def test_a_pause_and_a_training_by_hand_count():
    """Nothing is asked for while paused; what a person trained on is not trained on again."""
    paused = [Happening(1e6 - 9, "paused"), published(1e6, 1), Happening(1e6 + 90, "resumed")]
    by_hand = [
        Happening(1e6 - 9, "paused"),
        published(1e6, 1),
        Happening(1e6 + 5, "trained", dataset=digest(part(1)), run="r"),
        Happening(1e6 + 90, "resumed"),
    ]

    assert [1e6 + 90] == [one.at for one in replayed(paused)]
    assert [] == replayed(by_hand)


def test_recorded_drift_asks_where_it_is_allowed_to():
    """With on_drift a measured drift trains on new data that the row bound would not."""
    drift = Measured("partition drift", "", 0.5, 0.2, beyond=True, because="age drifted")
    days = [
        published(1e6, 1),
        published(1e6 + HOUR, 2, rows=10),
        Happening(1e6 + HOUR + 1, "measured", measured=drift),
    ]

    assert [1e6] == [one.at for one in replayed(days, min_new_rows=50)]
    found = replayed(days, min_new_rows=50, on_drift=True)
    assert [1e6, 1e6 + HOUR + 1] == [one.at for one in found]
    assert "age drifted" in found[1].because


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 9)), max_size=12), st.data())
@settings(max_examples=40, deadline=None)
def test_a_replay_says_the_same_each_time(arrivals, data):
    """Equal happenings and settings give equal trainings, never two at once, never one twice."""
    happened = [
        published(1e6 + at, day, version=str(i)) for i, (at, day) in enumerate(sorted(arrivals))
    ]
    policy = {
        "min_new_rows": data.draw(st.sampled_from([1, 150, 400])),
        "quiet": data.draw(st.sampled_from(["0 s", "45 s"])),
        "max_per_day": data.draw(st.integers(1, 5)),
    }

    found = replayed(happened, **policy)

    assert found == replayed(happened, **policy)
    later = found[policy["max_per_day"] :]
    assert all(b.at >= a.at + 86400.0 for a, b in zip(found, later, strict=False))
    assert all(b.at >= a.at + 60.0 for a, b in pairwise(found))
    assert all(a.dataset != b.dataset for a, b in pairwise(found))


# Experiments


def outcomes(count, better=0.15, seed=3):
    chance = random.Random(seed)
    for i in range(1, count + 1):
        challenger = chance.random() < 0.5
        value = float(chance.random() < 0.6 + (better if challenger else 0.0))
        yield Observed(i, challenger, 0.5, value), 1000.0 + i


def even(count, share):
    arm = ArmCounts(
        entities=round(count * share / 2),
        expected_entities=round(count * share / 2),
        requests=round(count * share / 2),
    )
    return arm, arm


def question(**change):
    return ExperimentSettings(
        **{"kind": "proportion", "alpha": 0.05, "min_samples": 100, "max_duration": 1e6, **change}
    )


def test_a_replay_decides_at_the_outcome_that_decided():
    """The first look at which the experiment itself decides, with the same words."""
    found = replay_experiment(
        outcomes(3000), question(), started_at=1000.0, total=3000,
        counts=partial(even, 3000), until=5000.0,
    )  # fmt: skip
    state = ExperimentState(started_at=1000.0)
    for observed, told in outcomes(3000):
        state = update(state, [observed])
        said = judge(state, question(), *even(3000, observed.offset / 3000), now=told)
        if said.decision != "continue":
            break

    assert "promote" == found.decision
    assert (observed.offset, told, said.because) == (found.offset, found.at, found.because)
    assert found.outcomes == observed.offset == found.points[-1].outcomes


def test_other_settings_decide_elsewhere():
    """More certainty and more samples take longer; a direction turned around rolls back."""
    run = partial(replay_experiment, started_at=1000.0, total=3000,
                  counts=partial(even, 3000), until=5000.0)  # fmt: skip

    usual = run(outcomes(3000), question())
    surer = run(outcomes(3000), question(alpha=0.001))
    assert surer.outcomes > usual.outcomes
    assert run(outcomes(3000), question(min_samples=1200)).outcomes >= 2400
    assert "roll_back" == run(outcomes(3000), question(higher_is_better=False)).decision


def test_the_time_limit_comes_between_outcomes_or_after_them():
    """What is not decided by max_duration is inconclusive then, and no later outcome counts."""
    run = partial(replay_experiment, started_at=1000.0, counts=partial(even, 300))
    short = question(max_duration=150.0, min_samples=5000)

    within = run(outcomes(300), short, total=300, until=9000.0)
    assert ("inconclusive", 1150.0, 149) == (within.decision, within.at, within.outcomes)
    after = run(outcomes(100), short, total=100, until=9000.0)
    assert ("inconclusive", 1150.0, 100) == (after.decision, after.at, after.outcomes)
    early = run(outcomes(100), short, total=100, until=1120.0)
    assert ("continue", None) == (early.decision, early.at)
