"""What a person makes of a rollout: promote, roll back, move traffic, pause, resume."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rollout_world import World, command, pass_step, world

from ml_control.core.rollout import (
    Health,
    Judged,
    apply,
    decide,
)
from ml_control.errors import Conflict, MlControlError, NotProven
from ml_control.spec import RolloutSpec


def test_a_rollback_is_one_write_while_the_version_before_is_up():
    """Weights and champion go back at once; a second rollback is refused saying so."""
    found = world()
    found.settle()
    version = found.stored.version

    assert ["revert"] == command(found, "rollback")

    assert (version + 1, "one", ("two",)) == (
        found.stored.version,
        found.stored.champion,
        found.stored.rolled_back,
    )
    with pytest.raises(Conflict, match="rolled back already"):
        command(found, "rollback")
    found.settle()
    assert "one" == found.stored.champion


def test_a_rollback_to_a_retired_version_deploys_it_again():
    """Its server is gone: it is put up from its proven bytes, then takes the traffic."""
    found = world(keep_alive="0 s")
    found.settle()
    assert {"b"} == set(found.stored.variants)

    assert ["deploy", "revert"] == command(found, "rollback")

    assert ("one", "two") == (found.stored.champion, found.stored.rolled_back[0])


def test_a_rollback_in_an_experiment_ends_it_and_goes_no_further_back():
    """The challenger is taken out; doing it again does not take the champion's place away."""
    found = world(strategy="ab_test")
    found.settle()

    assert ["roll_back"] == command(found, "rollback")

    with pytest.raises(Conflict, match="rolled back already"):
        command(found, "rollback")
    assert "one" == found.stored.champion


def test_two_people_promote_and_the_second_finds_it_done():
    """Promoting the champion is no change, whoever asks."""
    found = world(strategy="ab_test")
    found.settle()

    assert ["promote"] == command(found, "promote")
    assert [] == command(found, "promote", "two")
    assert [] == command(found, "promote")
    assert "two" == found.stored.champion


def unjudged(found):
    found.train("three", passes=False)


def lost(found):
    command(found, "promote")
    command(found, "rollback")
    found.train("three", passes=True)


def waiting(found):
    found.consent["three"] = "pending"
    found.train("three", passes=True)


@pytest.mark.parametrize(
    ("before", "version", "error", "word"),
    [
        (unjudged, "three", NotProven, "refused"),
        (lost, "two", NotProven, "lost live"),
        (waiting, "three", NotProven, "waits for a person's approval"),
    ],
)
def test_no_person_promotes_what_must_not_serve(before, version, error, word):
    """Refused, rolled back, or without its approval: each says why and what to do."""
    found = world()
    before(found)
    state = found.stored

    with pytest.raises(error, match=word) as refused:
        command(found, "promote", version)

    assert refused.value.next
    assert state == found.stored


def test_another_model_is_not_promoted_over_an_experiment():
    """The rollout in progress is named; ending it is a decision of its own."""
    found = world(strategy="ab_test")
    found.settle()
    found.train("three", passes=True)

    with pytest.raises(Conflict, match="of model two is in progress"):
        command(found, "promote", "three")


def test_a_share_set_by_a_person_is_where_a_canary_goes_on_from():
    """The next step is the first larger one; the step bakes anew."""
    found = world(strategy="canary")
    found.settle()

    assert ["share"] == command(found, "traffic", share=0.1)
    assert [] == command(found, "traffic", share=0.1)
    assert {"a": 0.9, "b": 0.1} == found.stored.weights
    pass_step(found)

    assert 0.25 == found.stored.share


@pytest.mark.parametrize(("name", "share"), [("traffic", 0.2), ("rollback", 0.0)])
def test_nothing_to_move_is_refused(name, share):
    """Without a challenger or a version before, the refusal names what is missing."""
    found = World(RolloutSpec())
    found.train("one", passes=True)
    found.settle()

    with pytest.raises(MlControlError) as refused:
        command(found, name, share=share)

    assert ("Conflict", True) == (refused.value.kind, bool(refused.value.next))


def test_a_pause_stops_every_step_and_a_resume_bakes_anew():
    """While paused neither breach nor judgement acts; a person's command does."""
    found = world(strategy="canary")
    found.settle()
    command(found, "pause")
    assert [] == command(found, "pause")

    assert "a person paused it" == pass_step(found, 5000, Health(99, breach="errors"))
    command(found, "resume")

    assert (False, found.now) == (found.stored.paused, found.stored.step_at)
    found.health = None
    assert "no evidence" in found.settle()
    assert [] == command(found, "resume")


def test_a_released_target_is_told_and_stays_recorded():
    """A newer model takes the kept variant: the history says so, and a rollback redeploys."""
    found = world()
    found.settle()
    found.train("three", passes=True)
    decision = decide(found.stored, found.seen(), found.rules)
    assert ["release"] == [action.kind for action in decision.actions]
    assert "rollback target released" in decision.because

    found.settle()
    command(found, "rollback")

    assert ("two", ("three",)) == (found.stored.champion, found.stored.rolled_back)


def test_an_id_is_never_given_again_after_the_registry_went_back():
    """The same change made from an older record at another time has another id."""
    found = world(strategy="ab_test")
    found.step()
    before = found.stored
    action = decide(before, found.seen(), found.rules).actions[0]

    ids = {apply(before, action, found.now + i).id for i in range(50)}

    assert ("start", 50) == (action.kind, len(ids))


def test_an_action_of_an_earlier_rollout_changes_nothing_in_a_later_one():
    """A job that slept through the end of its rollout does not end the next one."""
    found = world(strategy="ab_test")
    found.settle()
    found.judged = Judged("roll_back", "worse")
    late = decide(found.stored, found.seen(), found.rules).actions[0]
    found.settle()
    found.train("three", passes=True)
    found.settle()
    assert ("in_progress", "roll_back") == (found.stored.state, late.kind)

    for kind in ("roll_back", "keep", "halt", "share", "promote"):
        action = replace(late, kind=kind, variant=found.stored.challenger, version="three")
        assert found.stored is apply(found.stored, action, found.now)
