"""What a rollout does next, case by case: each strategy, alarms, clocks, third models."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from rollout_world import BAKE, DAY, FIT, World, command, pass_step, world

from ml_control.core.rollout import (
    HEALTHY_REQUESTS,
    Alarmed,
    Health,
    Judged,
    Serving,
    decide,
)
from ml_control.errors import Unknown
from ml_control.spec import RolloutSpec


def test_a_first_model_takes_all_traffic_by_any_strategy():
    """There is nothing to compare it with: it is deployed and promoted, two writes."""
    for strategy in ("all_at_once", "canary", "ab_test"):
        found = World(RolloutSpec(strategy=strategy))
        found.train("one", passes=True)

        assert "the newest model is live" == found.settle()

        assert ("one", {"a": 1.0}) == (found.stored.champion, found.stored.weights)
        assert ["deploy", "promote"] == found.actions


def test_all_at_once_replaces_the_champion_and_keeps_it_up():
    """The second model takes all traffic; the first stays for a rollback until keep_alive ends."""
    found = world(keep_alive="1 h")
    found.settle()

    assert ("two", {"a": 0.0, "b": 1.0}) == (found.stored.champion, found.stored.weights)
    assert ({"a": found.now}, "one") == (
        found.stored.losing_since,
        found.stored.previous.model_version,
    )
    found.now += 3599
    found.settle()
    assert {"a", "b"} == set(found.stored.variants)
    found.now += 1
    found.settle()
    assert ({"b"}, "Missing") == (set(found.stored.variants), found.endpoints["a"].state)
    assert "one" == found.stored.previous.model_version


def test_a_canary_goes_up_its_steps_by_healthy_evidence():
    """Each step is held for its bake, and only enough healthy requests lead to the next."""
    found = world(strategy="canary")
    shares = []
    found.settle()
    for _ in range(3):
        shares.append(found.stored.share)
        found.health = None
        assert "it takes" in pass_step(found, BAKE - 1)
        pass_step(found, 2)

    assert [0.05, 0.25, 1.0] == shares
    assert ("two", "idle", "promoted") == (
        found.stored.champion,
        found.stored.state,
        found.stored.ended,
    )


@pytest.mark.parametrize("health", [None, Health(0), Health(HEALTHY_REQUESTS - 1)])
def test_missing_data_is_never_healthy(health):
    """Without enough requests a canary holds, and after max_duration the champion stays."""
    found = world(strategy="canary", max_duration="1 h")
    found.settle()
    assert "no evidence" in pass_step(found, 3000, health)
    assert 0.05 == found.stored.share

    because = pass_step(found, 601, health)

    assert ("one", ("two",), "kept") == (
        found.stored.champion,
        found.stored.set_aside,
        found.stored.ended,
    )
    assert "only a person promotes it" in because


def test_a_flapping_alarm_holds_a_canary_where_it_is():
    """As long as it comes back before a bake has passed without it, no step is taken."""
    found = world(strategy="canary")
    found.settle()
    writes = list(found.actions)
    for _ in range(20):
        found.now += 300
        found.health = Health(500, alarm="errors above the limit", alarm_since=found.now - 300)
        assert "it holds" in found.settle()
        found.now += 300
        found.health = Health(900, clear_since=found.now - 299)
        assert "cleared 299 s ago" in found.settle()
    assert (writes, 0.05) == (found.actions, found.stored.share)

    pass_step(found, 302, Health(900, clear_since=found.now - 299))

    assert 0.25 == found.stored.share


def test_a_breach_rolls_back_once_and_for_good():
    """The challenger loses its traffic in one write, and neither it nor its rollout comes back."""
    found = world(strategy="canary")
    found.settle()

    because = pass_step(found, 5, Health(50, breach="errors beyond their limit"))
    for _ in range(10):
        pass_step(found, 700, FIT)

    assert "is not tried again" in because
    assert ("one", ("two",), {"a": 1.0, "b": 0.0}) == (
        found.stored.champion,
        found.stored.rolled_back,
        found.stored.weights,
    )
    assert 1 == found.actions.count("roll_back")


@pytest.mark.parametrize("strategy", ["canary", "ab_test"])
def test_an_alarm_that_fires_takes_the_challenger_back_once(strategy):
    """Whatever its metric says; also when its server died; a rollout is rolled back once."""
    found = world(strategy=strategy)
    found.settle()
    found.judged = Judged("promote", "it is better")
    found.alarms = Alarmed(firing="alarm errors-high fires", unclear="alarm other has no data")
    found.endpoints["b"] = Serving("Failed", "two")

    for _ in range(5):
        pass_step(found, 700, FIT)

    assert ("one", ("two",), "rolled_back") == (
        found.stored.champion,
        found.stored.rolled_back,
        found.stored.ended,
    )
    assert 1 == found.actions.count("roll_back")


@pytest.mark.parametrize("strategy", ["canary", "ab_test"])
def test_an_alarm_without_data_holds_and_is_never_healthy(strategy):
    """No step and no promotion while it lasts; a breach still decides; when time is over the
    champion stays; with data it goes on.
    """
    found = world(strategy=strategy, max_duration="1 h")
    found.settle()
    share = found.stored.share
    found.judged = Judged("promote", "it is better")
    found.alarms = Alarmed(unclear="alarm errors-high has no data")

    because = pass_step(found, 1000, FIT)

    assert "it holds, for alarm errors-high has no data; else: " in because
    assert (share, "one", "in_progress") == (
        found.stored.share,
        found.stored.champion,
        found.stored.state,
    )
    healed, broken = copy.deepcopy(found), copy.deepcopy(found)
    healed.alarms = Alarmed()
    pass_step(healed, 1, FIT)
    assert healed.stored.share > share or "two" == healed.stored.champion
    broken.judged = Judged("roll_back", "it is worse")
    pass_step(broken, 1, Health(500, breach="errors"))
    assert "rolled_back" == broken.stored.ended
    pass_step(found, 3600, FIT)
    assert ("one", "kept") == (found.stored.champion, found.stored.ended)


@pytest.mark.parametrize(
    ("said", "champion", "ended"),
    [
        ("promote", "two", "promoted"),
        ("roll_back", "one", "rolled_back"),
        ("inconclusive", "one", "kept"),
    ],
)
def test_an_experiment_is_decided_by_its_judgement(said, champion, ended):
    """It takes its share until the evidence says something; the id, which assigns, stays."""
    found = world(strategy="ab_test", challenger_weight=0.3)
    found.settle()
    began = found.stored
    assert ("experiment", 0.3) == (began.phase, began.share)
    found.judged = Judged("continue", "too few outcomes")
    assert "too few outcomes" == found.settle()

    found.judged = Judged(said, "outcomes")
    found.settle()

    assert (champion, ended, began.id) == (
        found.stored.champion,
        found.stored.ended,
        found.stored.id,
    )


def test_what_decides_at_the_last_moment_decides():
    """Evidence that comes with the end of max_duration has the first word."""
    found = world(strategy="ab_test", max_duration="1 d")
    found.settle()
    found.now += 2 * DAY
    found.judged = Judged("promote", "the challenger is better")

    found.settle()

    assert "two" == found.stored.champion


def test_a_model_that_cannot_answer_a_replay_takes_no_traffic():
    """It is rolled back out of the shadow; no request was ever sent to it."""
    found = world(strategy="ab_test")
    found.logged, found.mute = 100, {"two"}

    found.settle()

    assert ("one", ("two",)) == (found.stored.champion, found.stored.rolled_back)
    assert "share" not in found.actions


def test_a_third_model_waits_and_the_newest_is_gated_again():
    """While two is judged, three and four wait; then four is judged against the new champion."""
    found = world(strategy="ab_test")
    found.settle()
    found.train("three", passes=True)
    found.train("four", passes=True)
    found.judged = Judged("continue", "undecided")
    found.settle()
    assert ("two", 0.5) == (found.stored.variants["b"].model_version, found.stored.share)

    found.judged = Judged("promote", "better")
    found.settle()

    assert found.verdicts[("four", "two")]
    assert ("two", "four") == (found.stored.champion, found.stored.variants["a"].model_version)
    assert "release" in found.actions
    assert "one" == found.stored.previous.model_version
    assert "three" not in {entry.model_version for entry in found.stored.variants.values()}


def test_a_third_model_that_fails_against_the_new_champion_is_refused():
    """Gated again, it says no, and is neither deployed nor asked for ever."""
    found = world(strategy="ab_test")
    found.settle()
    found.train("three", passes=True)
    found.judged = Judged("promote", "better")
    found.passes["three"] = False

    because = found.settle()

    assert "model three is refused" in because
    assert ("two", {"one", "two"}) == (
        found.stored.champion,
        {entry.model_version for entry in found.stored.variants.values()},
    )


@pytest.mark.parametrize("state", ["canary", "ab_test"])
def test_a_clock_set_back_an_hour_counts_anew_from_now(state):
    """Neither bake nor keep-alive is shortened, and none waits for the clock to catch up."""
    found = world(strategy=state, keep_alive="1 d")
    found.settle()
    found.judged = Judged("continue", "undecided")

    found.now -= 3600
    found.settle()

    assert (found.now, found.now) == (found.stored.step_at, found.stored.started_at)
    pass_step(found, BAKE - 1)
    assert found.stored.share in (0.05, 0.5)
    pass_step(found, 2)
    found.judged = Judged("promote", "better")
    for _ in range(3):
        pass_step(found)
    assert "two" == found.stored.champion
    lost = dict(found.stored.losing_since)
    found.now -= 3600
    found.settle()
    assert {"a": found.now} == found.stored.losing_since != lost


def test_an_endpoint_that_holds_another_model_halts_and_asks():
    """The weights stand, nothing is done by itself, and a person resumes once it is put right."""
    found = world(strategy="ab_test")
    found.settle()
    weights = found.stored.weights
    found.endpoints["b"] = Serving("InService", "one")
    because = found.settle()
    assert ("halted", weights) == (found.stored.state, found.stored.weights)
    assert "a person resumes or decides" in because
    found.judged = Judged("promote", "better")
    found.now += 100 * DAY
    assert because == found.settle()
    with pytest.raises(Unknown, match="holds model one"):
        command(found, "resume")

    found.endpoints["b"] = Serving("InService", "two")
    command(found, "resume")

    assert ("in_progress", found.now) == (found.stored.state, found.stored.step_at)


def test_evidence_that_cannot_be_read_halts_and_what_is_late_holds():
    """A damaged record asks a person; a log that does not answer now is only waited for."""
    found = world(strategy="ab_test")
    found.settle()

    late = decide(found.stored, replace(found.seen(), late="the log is locked"), found.rules)
    damaged = decide(found.stored, replace(found.seen(), unreadable="no JSON"), found.rules)

    assert ((), "no evidence: the log is locked") == (late.actions, late.because)
    assert ["halt"] == [action.kind for action in damaged.actions]


def test_a_challenger_that_cannot_come_back_is_rolled_back_a_champion_halts():
    """Who is dead for good loses; without its champion nothing can be decided."""
    for victim, state, rolled in (("b", "idle", ("two",)), ("a", "halted", ())):
        found = world(strategy="ab_test")
        found.settle()
        found.dead = {found.endpoints[victim].version}
        found.endpoints[victim] = Serving("Failed", found.endpoints[victim].version)

        found.settle()

        assert (state, rolled) == (found.stored.state, found.stored.rolled_back)
