"""When to train: once for each published dataset, and never while something would change it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.records import TrainingState
from ml_control.core.retraining import GRACE_SECONDS, Observation, decide

NOW = 1_000_000.0
CALM = {
    "published": "d1",
    "ingesting": 0,
    "waiting": 0,
    "training": False,
    "backfilling": False,
    "undeployed": False,
    "now": NOW,
}


def asked(state=None, *, automatic=True, max_attempts=3, **seen):
    return decide(
        TrainingState(pipeline="p", **(state or {})),
        Observation(**{**CALM, **seen}),
        automatic=automatic,
        max_attempts=max_attempts,
    )


def tried(attempt, outcome="failed", ago=1e6, **fields):
    return {"dataset": "d1", "attempt": attempt, "outcome": outcome, "at": NOW - ago, **fields}


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
]


@pytest.mark.parametrize(
    ("state", "seen", "trains", "because"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_the_table_of_decisions(state, seen, trains, because):
    """Each situation has its decision, and people are told why."""
    decision = asked(state, **seen)

    assert trains == decision.train
    assert because in decision.because


def test_switched_off_means_never():
    """With retrain.automatic off nothing is trained, and the reason names the setting."""
    decision = asked(automatic=False)

    assert (False, "retrain.automatic is off") == (decision.train, decision.because)


def test_new_data_begins_with_the_first_attempt():
    """Attempts are counted for each dataset anew."""
    assert 1 == asked({"dataset": "d0", "attempt": 3, "outcome": "failed"}).attempt
    assert 3 == asked(tried(2)).attempt


states = st.builds(
    TrainingState,
    pipeline=st.just("p"),
    dataset=st.none() | st.sampled_from(["d1", "d2"]),
    attempt=st.integers(0, 30),
    outcome=st.sampled_from([None, "requested", "passed", "refused", "failed"]),
    at=st.floats(0, 2 * NOW),
)
observations = st.builds(
    Observation,
    published=st.none() | st.sampled_from(["d1", "d2"]),
    ingesting=st.integers(0, 2),
    waiting=st.integers(0, 2),
    training=st.booleans(),
    backfilling=st.booleans(),
    undeployed=st.booleans(),
    now=st.floats(0, 2 * NOW),
)


@given(state=states, seen=observations, automatic=st.booleans(), most=st.integers(1, 20))
def test_whatever_is_true_these_hold(state, seen, automatic, most):
    """Never while anything is under way, never past the attempts, never twice for one answer."""
    decision = decide(state, seen, automatic=automatic, max_attempts=most)
    busy = seen.ingesting or seen.waiting or seen.training or seen.backfilling

    assert decision == decide(state, seen, automatic=automatic, max_attempts=most)
    assert decision.because
    if decision.train:
        assert automatic
        assert not busy
        assert seen.published is not None
        assert 1 <= decision.attempt <= most
        if state.dataset == seen.published:
            assert state.outcome != "refused"
            assert state.outcome != "passed" or seen.undeployed
            assert state.attempt + 1 == decision.attempt
            waited = seen.now - state.at
            assert waited < 0 or waited >= GRACE_SECONDS * 2 ** (state.attempt - 1)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(["d1", "d2", "d3"])),
        st.tuples(st.just("end"), st.sampled_from(["passed", "refused", "failed", "vanished"])),
        st.tuples(st.just("busy"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 61.0, 1e5])),
    ),
    max_size=60,
)


@given(steps=steps, most=st.integers(1, 4))
def test_any_history_trains_once_for_each_answer(steps, most):
    """In any order of publishing, ends, crashes and waits: one run at a time, once for each
    published dataset unless a run gave no answer, and then at most the allowed attempts.
    """
    state = TrainingState(pipeline="p")
    published, running, busy, now = None, None, False, NOW
    without_answer = 0
    for what, value in steps:
        if what == "publish":
            published = value
        elif what == "busy":
            busy = value
        elif what == "wait":
            now += value
        elif running is not None:
            if value != "vanished":
                state = state.model_copy(update={"outcome": value})
            without_answer += value in ("failed", "vanished")
            running = None
        seen = Observation(
            published,
            0,
            int(busy),
            running is not None,
            backfilling=False,
            undeployed=False,
            now=now,
        )
        decision = decide(state, seen, automatic=True, max_attempts=most)
        if not decision.train:
            continue

        assert running is None
        assert not busy
        if state.dataset == published:
            assert state.outcome in ("requested", "failed")
            assert without_answer == decision.attempt - 1 < most
        else:
            without_answer = 0
        running = published
        state = TrainingState(
            pipeline="p",
            dataset=published,
            attempt=decision.attempt,
            outcome="requested",
            at=now,
        )
