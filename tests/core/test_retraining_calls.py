"""Schedules' events as triggers: each asks once, and one training answers all that came before."""

from __future__ import annotations

import pytest

from ml_control.core.retraining import Observation, begun, called, decide, ended, requested
from ml_control.core.training_state import TrainingState
from ml_control.spec import Retrain

NOW = 1_000_000.0


def seen(now=NOW, **fields):
    """A calm world whose data was trained on."""
    calm = {
        "published": "d1",
        "trained": "d1",
        "ingesting": 0,
        "waiting": 0,
        "training": False,
        "backfilling": False,
        "undeployed": False,
    }
    return Observation(**{**calm, "now": now, **fields})


def trained():
    """A state after a judged training of this data, an hour ago."""
    state = begun(TrainingState(pipeline="p"), "d1", "r0", NOW - 3600)
    return ended(state, "passed", "", NOW - 3600, dataset="d1")


def asks(state, policy=None, **fields):
    """Whether a training begins now, and the state that is kept."""
    decision = decide(state, seen(**fields), Retrain.model_validate(policy or {}))
    return decision.train, decision.state


@pytest.mark.parametrize("outcome", ["passed", "refused"])
def test_an_event_is_answered_by_one_training(outcome):
    """It asks although the data is the same, and no more once that training was judged."""
    assert not asks(trained())[0]
    state = called(trained(), "e1", NOW)
    wanted, state = asks(state)
    assert wanted
    state = requested(state, "d1", 1, "", NOW)
    state = begun(state, "d1", "r1", NOW)
    assert not asks(state, training=True)[0]
    state = ended(state, outcome, "", NOW + 10, dataset="d1")
    wanted, state = asks(state, now=NOW + 5000)

    assert not wanted
    assert () == state.triggers


def test_events_before_a_training_are_one_and_one_during_it_is_another():
    """What comes while a training runs was not answered by it."""
    state = called(called(trained(), "e1", NOW), "e2", NOW + 1)
    assert ["e1"] == [trigger.subject for trigger in state.triggers]
    state = begun(requested(state, "d1", 1, "", NOW), "d1", "r1", NOW)
    state = called(state, "e3", NOW + 5)
    state = ended(state, "passed", "", NOW + 10, dataset="d1")
    wanted, state = asks(state, now=NOW + 5000)

    assert wanted
    assert ["e3"] == [trigger.subject for trigger in state.triggers]


def test_an_event_whose_training_gave_no_answer_still_asks():
    """A run that died is tried again; the event is not used up by it."""
    state = begun(requested(called(trained(), "e1", NOW), "d1", 1, "", NOW), "d1", "r1", NOW)
    state = ended(state, "failed", "it died", NOW + 10, dataset="d1")

    assert asks(state, now=NOW + 50_000)[0]


def test_what_makes_every_training_wait_holds_for_events_too():
    """Switched off, paused, or while data comes in: it waits, and is not forgotten."""
    state = called(trained(), "e1", NOW)

    for policy, fields in (
        ({"automatic": False}, {}),
        ({}, {"paused": True}),
        ({}, {"waiting": 1}),
    ):
        wanted, kept = asks(state, policy, **fields)
        assert (False, state.triggers) == (wanted, kept.triggers)
