"""When to train: what asks for it, what makes it wait, and that every "no" says why."""

import pytest

from ml_control.core.retraining import (
    GRACE_SECONDS,
    Measured,
    Observation,
    begun,
    decide,
    ended,
    redeploying,
    requested,
)
from ml_control.core.training_state import TrainingState
from ml_control.spec import Retrain

NOW = 1_000_000.0
DAY = 86400.0
CALM = {
    "published": "d1",
    "ingesting": 0,
    "waiting": 0,
    "training": False,
    "backfilling": False,
    "undeployed": False,
    "now": NOW,
}


def asked(state=None, policy=None, **seen):
    """The decision of a state under a policy, in a calm world unless told otherwise."""
    if not isinstance(state, TrainingState):
        state = TrainingState(pipeline="p", **(state or {}))
    rules = Retrain.model_validate(policy or {})
    return decide(state, Observation(**{**CALM, **seen}), rules)


def tried(attempt, outcome="failed", ago=1e6, **fields):
    return {"dataset": "d1", "attempt": attempt, "outcome": outcome, "at": NOW - ago, **fields}


def trained(dataset="d1", ago=1e6, **fields):
    """A state after a judged training."""
    at = NOW - ago
    return {
        "dataset": dataset,
        "attempt": 1,
        "outcome": "passed",
        "at": at,
        "began": at,
        "number": 1,
        "run": "r",
        **fields,
    }


# (what, state, observation, trains, part of the reason shown)
TABLE = [
    ("nothing published", None, {"published": None}, False, "nothing is published yet"),
    ("first data", None, {}, True, "new data was published"),
    ("newer data", {"dataset": "d0", "outcome": "passed"}, {}, True, "new data was published"),
    ("newer data after halting", {"dataset": "d0", "attempt": 9}, {}, True, "new data"),
    ("passed", tried(1, "passed"), {}, False, "was trained on: passed"),
    ("passed, run died", tried(1, "passed"), {"undeployed": True}, True, "not deployed yet"),
    ("passed, just now", tried(1, "passed", ago=9), {"undeployed": True}, False, "waiting"),
    ("never deploys", tried(3, "passed"), {"undeployed": True}, False, "could not be deployed"),
    ("refused, old one", tried(1, "refused"), {"undeployed": True}, False, "refused"),
    ("clock set back", tried(1, ago=-1e5), {}, True, "attempt 2"),
    ("refused by a gate", tried(1, "refused"), {}, False, "was trained on: refused"),
    ("just asked for", tried(1, "requested", ago=59.9), {}, False, "waiting"),
    ("vanished", tried(1, "requested", ago=60), {}, True, "attempt 2"),
    ("failed", tried(1, ago=60), {}, True, "attempt 2"),
    ("the wait doubles", tried(2, ago=119.9), {}, False, "waiting"),
    ("the doubled wait is over", tried(2, ago=120), {}, True, "attempt 3"),
    ("attempts used up", tried(3), {}, False, "halted after 3 failed attempts"),
    ("attempts used up, why", tried(3, reason="no memory"), {}, False, "attempts: no memory"),
    ("a backfill", None, {"backfilling": True}, False, "a backfill is in progress"),
    ("a training", None, {"training": True}, False, "a training run is in flight"),
    ("an ingest run", None, {"ingesting": 2}, False, "2 runs in flight, 0 partitions wait"),
    ("open events", None, {"waiting": 4}, False, "0 runs in flight, 4 partitions wait"),
    ("a person's pause", None, {"paused": True}, False, "a person paused this pipeline"),
]


@pytest.mark.parametrize(
    ("state", "seen", "trains", "because"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_the_table_of_decisions(state, seen, trains, because):
    """With the defaults each published dataset is trained on, and people are told why not."""
    decision = asked(state, **seen)

    assert trains == decision.train
    assert because in decision.because


def test_switched_off_means_never():
    """With retrain.automatic off nothing is trained, and the reason names the setting."""
    decision = asked(policy={"automatic": False})

    assert (False, "retrain.automatic is off") == (decision.train, decision.because)


def test_new_data_begins_with_the_first_attempt():
    """Attempts are counted for each dataset anew."""
    assert 1 == asked({"dataset": "d0", "attempt": 3, "outcome": "failed"}).attempt
    assert 3 == asked(tried(2)).attempt


@pytest.mark.parametrize(("rows", "trains"), [(0, False), (999, False), (1000, True)])
def test_so_many_new_rows_are_wanted(rows, trains):
    """Below ``min_new_rows`` nothing is trained, and the reason says how many there are."""
    decision = asked(trained("d0"), {"min_new_rows": 1000}, trained="d0", new_rows=rows)

    assert trains == decision.train
    said = "new data was published" if trains else f"{max(rows, 1):,} of 1,000 new rows"
    assert said in decision.because


def test_data_whose_training_failed_still_asks_when_little_more_comes():
    """Rows count from what the newest model knows, so a failed training uses none of them up."""
    state = {"dataset": "d0", "attempt": 3, "outcome": "failed", "at": NOW - 9}

    decision = asked(state, {"min_new_rows": 1000}, trained="old", new_rows=1010)

    assert (True, 1) == (decision.train, decision.attempt)


def test_a_rate_counts_from_the_last_training():
    """The same data is trained on again once the time is over, as a first attempt."""
    policy = {"every": "7 d"}
    early = asked(trained(ago=7 * DAY - 1), policy, trained="d1")
    late = asked(trained(ago=7 * DAY), policy, trained="d1")

    assert not early.train
    assert "this data was trained on: passed; the next time is 1970-01-12" in early.because
    assert NOW + 1 == early.scheduled == early.not_before
    assert (True, 1, "it is due (7 d)") == (late.train, late.attempt, late.because)


def test_a_schedule_of_a_pipeline_never_trained_counts_from_its_first_data():
    """Too few rows for the first training are trained on when the time has come."""
    policy = {"every": "1 d", "min_new_rows": 500}
    early = asked(None, policy, new_rows=9, first_published=NOW - DAY + 1)
    late = asked(None, policy, new_rows=9, first_published=NOW - DAY)

    assert (False, True) == (early.train, late.train)


def test_missed_times_of_a_cron_expression_collapse_into_one():
    """After three missed weeks there is one training, and the next one is next week."""
    monday = 4 * DAY + 3 * 3600.0  # 1970-01-05 03:00
    policy = {"every": "0 3 * * 1"}
    state = TrainingState(pipeline="p", **trained(ago=NOW - monday + 60))
    late = monday + 3 * 7 * DAY + 5
    decision = asked(state, policy, trained="d1", now=late)
    state = requested(decision.state, "d1", 1, "", late)
    state = ended(begun(state, "d1", "r", late), "passed", "", late + 9, dataset="d1")

    after = asked(state, policy, trained="d1", now=late + 600)

    assert (True, False) == (decision.train, after.train)
    assert monday + 4 * 7 * DAY == after.scheduled


def test_a_day_that_never_comes_is_no_schedule():
    """A 30th of February asks for nothing and breaks nothing."""
    decision = asked(trained(), {"every": "0 0 30 2 *"}, trained="d1")

    assert (False, None) == (decision.train, decision.scheduled)


def test_the_next_time_begins_attempts_anew():
    """A schedule whose training was halted tries again at its next time."""
    state = tried(3, ago=1000, began=NOW - 3600)
    policy = {"every": "3600 s"}
    halted = asked({**state, "began": NOW - 3599}, policy, trained="d1")
    due = asked(state, policy, trained="d1")

    assert (False, True) == (halted.train, halted.halted)
    assert (True, 1) == (due.train, due.attempt)


def test_quiet_is_waited_for_and_not_beyond_max_wait():
    """Publishing that never ends delays a training by ``max_wait`` and no more."""
    policy = {"quiet": "60 s", "max_wait": "300 s"}
    state, when = TrainingState(pipeline="p"), []
    for second in range(0, 600, 10):
        now = NOW + second
        decision = asked(state, policy, now=now, last_published=now - 5, published=f"d{second}")
        state = decision.state
        if decision.train:
            when.append(second)
            break
        assert "waiting for quiet: nothing was published for 5 s of 60 s" == decision.because

    assert [300] == when
    assert asked(None, policy, last_published=NOW - 60).train


def test_data_that_never_stops_coming_in_does_not_starve_a_training():
    """Ingestion in flight is waited for, but only for ``max_wait``."""
    policy = {"max_wait": "300 s"}
    first = asked(None, policy, ingesting=1)
    before = asked(first.state, policy, ingesting=1, now=NOW + 299)
    after = asked(first.state, policy, ingesting=1, now=NOW + 300)

    assert [False, False, True] == [one.train for one in (first, before, after)]
    assert NOW + 300 == before.not_before


def test_a_clock_set_back_ends_the_quiet():
    """Data published in the future says nothing about how long it was quiet."""
    assert asked(None, {"quiet": "60 s"}, last_published=NOW + 3600).train


def test_between_two_trainings_is_the_cooldown():
    """New data waits until it is over, and the reason says for how long."""
    policy = {"cooldown": "600 s"}
    early = asked(trained("d0", ago=599), policy, trained="d0")
    late = asked(trained("d0", ago=600), policy, trained="d0")

    assert (False, True) == (early.train, late.train)
    assert "cooling down: the last training was 599 s ago, of 600 s" == early.because
    assert NOW + 1 == early.not_before


def test_the_budget_is_of_any_24_hours():
    """It is a rolling window: the oldest training of the day makes room when it is a day old."""
    asked_at = (NOW - DAY + 60, NOW - 3600, NOW - 60)
    state = trained("d0", asked=asked_at)
    full = asked(state, {"max_per_day": 3}, trained="d0")
    later = asked(state, {"max_per_day": 3}, trained="d0", now=NOW + 60)
    more = asked(state, {"max_per_day": 4}, trained="d0")

    assert [False, True, True] == [one.train for one in (full, later, more)]
    assert "the day's budget is used up: 3 trainings within 24 hours" in full.because
    assert (NOW + 60, 0, 1) == (full.not_before, full.budget, more.budget)


def test_times_to_come_do_not_block_the_budget_for_ever():
    """After the clock was set back by a year, what was asked for counts as of now."""
    year = 365 * DAY
    state = trained("d0", asked=(NOW + year,), began=NOW + year)
    policy = {"max_per_day": 1, "cooldown": "1 h"}
    now = asked(state, policy, trained="d0")
    after = asked(now.state, policy, trained="d0", now=NOW + DAY)

    assert (False, True) == (now.train, after.train)


def test_a_proven_model_is_deployed_whatever_the_budget():
    """A run that trains nothing is neither cooled down nor budgeted, and takes none of it."""
    state = TrainingState(pipeline="p", **trained(ago=60, asked=(NOW - 60,)))
    policy = {"max_per_day": 1, "cooldown": "1 h"}

    decision = asked(state, policy, trained="d1", undeployed=True)

    assert (True, True, 2) == (decision.train, decision.redeploy, decision.attempt)
    after = redeploying(decision.state, 2, NOW)
    assert ("passed", (NOW - 60,)) == (after.outcome, after.asked)


def drift(value, kind="live drift", subject="m1", bound=0.2):
    return Measured(
        kind, subject, value, bound, value > bound, f"age has a PSI of {value:g}", over=bound / 2
    )


def test_drift_asks_only_if_it_is_wanted_and_there_is_other_data():
    """On the same data the same model would come out: the reason says so."""
    state, seen = trained("d0"), {"measured": (drift(0.3),), "trained": "d0", "new_rows": 5}
    policy = {"min_new_rows": 1000, "on_drift": True}
    wanted = asked(state, policy, **seen)
    unwanted = asked(state, {"min_new_rows": 1000}, **seen)
    same = asked(trained("d1"), policy, **{**seen, "trained": "d1"})

    assert (True, "age has a PSI of 0.3") == (wanted.train, wanted.because)
    assert not unwanted.train
    assert not same.train
    assert "age has a PSI of 0.3, but the data is the same as before" in same.because


def test_the_same_drift_is_trained_on_once():
    """It asks again when it was over and came back, when it grew by another bound, or when another
    model has it; not while it sways about its bound.
    """
    policy = {"min_new_rows": 10**6, "on_drift": True}
    state, trainings = TrainingState(pipeline="p", **trained("d0")), []
    course = [0.1, 0.25, 0.15, 0.25, 0.05, 0.25, 0.3, 0.46, 0.3, None, 0.3]
    for step, value in enumerate(course):
        now, dataset = NOW + 100 * step, f"d{step + 1}"
        measured = () if value is None else (drift(value),)
        seen = {"measured": measured, "trained": state.dataset, "published": dataset, "now": now}
        decision = asked(state, policy, **seen)
        state = decision.state
        if decision.train:
            trainings.append(step)
            state = begun(requested(state, dataset, 1, "", now), dataset, "r", now)
            state = ended(state, "refused", "", now + 9, dataset=dataset)

    assert [1, 5, 7] == trainings
    other = asked(state, policy, trained="x", measured=(drift(0.3, subject="m2"),), now=NOW + 9999)
    assert other.train


def test_drift_that_cannot_be_measured_is_neither_over_nor_new():
    """Missing data changes nothing: what was seen and not trained on keeps asking."""
    policy = {"min_new_rows": 10**6, "on_drift": True}
    busy = asked(trained("d0"), policy, trained="d0", measured=(drift(0.3),), training=True)
    blind = asked(busy.state, policy, trained="d0")

    assert (True, "live drift was seen, and cannot be measured now") == (
        blind.train,
        blind.because,
    )


@pytest.mark.parametrize("ends", ["passed", "refused"])
def test_what_is_seen_during_a_training_is_trained_on_once_after_it(ends):
    """Drift, new rows and a scheduled time in mid-training give one training more, not three."""
    policy = {"on_drift": True, "every": "1000 s"}
    first = asked(None, policy, first_published=NOW)
    state = begun(requested(first.state, "d1", 1, "", NOW), "d1", "r1", NOW)
    seen = {"published": "d2", "measured": (drift(0.3),), "now": NOW + 2000}
    during = asked(state, policy, training=True, **seen)
    again = asked(during.state, policy, training=True, **seen)
    assert not during.train
    assert "a training run is in flight; once more after it: new data was published" in (
        during.because
    )
    state = ended(again.state, ends, "", NOW + 2001, dataset="d1")

    follow_up = asked(state, policy, trained="d1", **seen)
    state = requested(follow_up.state, "d2", follow_up.attempt, "", NOW + 2002)
    state = ended(begun(state, "d2", "r2", NOW + 2003), ends, "", NOW + 2100, dataset="d2")
    after = asked(state, policy, trained="d2", **{**seen, "now": NOW + 2200})

    assert (True, 1) == (follow_up.train, follow_up.attempt)
    said = "new data was published; it is due (1000 s); age has a PSI of 0.3"
    assert said == follow_up.because
    assert not after.train


def test_a_training_that_died_is_not_an_answer():
    """The triggers that it was to answer still hold, and its wait is that of an attempt."""
    policy = {"on_drift": True, "min_new_rows": 10**6}
    first = asked(trained("d0"), policy, trained="d0", measured=(drift(0.3),))
    state = begun(requested(first.state, "d1", 1, "", NOW), "d1", "r1", NOW)

    soon = asked(state, policy, trained="d0", measured=(drift(0.3),), now=NOW + 59)
    late = asked(state, policy, trained="d0", measured=(drift(0.3),), now=NOW + GRACE_SECONDS)

    assert (False, True, 2) == (soon.train, late.train, late.attempt)


def test_trainings_of_people_count():
    """A run that nobody asked for here takes from the budget; one that was asked for, only once."""
    by_hand = begun(TrainingState(pipeline="p"), "d1", "r1", NOW)
    wanted = begun(requested(TrainingState(pipeline="p"), "d1", 1, "", NOW), "d1", "r1", NOW + 3)

    assert ((NOW,), (NOW,)) == (by_hand.asked, wanted.asked)


def test_a_state_written_before_there_were_triggers_is_read():
    """Its time of ending stands for its beginning."""
    old = {"pipeline": "p", "dataset": "d1", "attempt": 1, "outcome": "passed", "at": NOW - DAY}
    state = TrainingState.model_validate({**old, "reason": "every gate passed", "run": "r"})

    assert asked(state, {"every": "1 d"}, trained="d1").train
    assert not asked(state, {"every": "2 d"}, trained="d1").train
