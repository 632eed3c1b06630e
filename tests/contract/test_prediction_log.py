"""The prediction log: every request once, every outcome joined once, counted as they come."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace

import pytest
from logged import NOON, P, R, all_joined, request, told

from ml_control.errors import BadObject, Conflict
from ml_control.ports import LATENCY_BOUNDS, Traffic


def test_a_request_id_is_logged_once_whoever_brings_it_again(logs):
    """A redelivered request changes nothing, also within one call, and says so."""
    one, other = logs

    assert [True, False, True] == one.append([request("r1"), request("r1"), request("r2")])
    assert [False, True] == other.append([request("r1", latency=9.0), request("r3")])
    assert ["r1", "r2", "r3"] == [each.prediction.request_id for each in one.after(P, 0, 10)]
    assert request("r1") == other.find(P, "r1")
    assert 3 == one.count(P, NOON)
    assert 3 == other.traffic(P, R)["champion"].requests


def test_a_request_comes_back_as_it_was_logged(logs):
    """Also one that failed, has no records, and texts of any kind."""
    whole = request(
        "ä\u0000'; --", "\U0001f337", challenger=True, share=0.25, served="", failed=True,
        failure="timed out", records=None, answers=b"[]", latency=12.5, rows=3,
    )  # fmt: skip
    logs[0].append([whole])

    assert whole == logs[1].find(P, whole.request_id)
    assert logs[1].find("other", whole.request_id) is None


def test_pipelines_do_not_see_each_other(logs):
    """The same request id in two pipelines is two requests, each with its own order and counts."""
    one, other = logs
    one.append([request("r1"), request("r1", pipeline="birds"), request("r2", pipeline="birds")])
    other.tell("birds", "r1", [told()])

    assert [1, 2] == [one.count(name, NOON) for name in (P, "birds")]
    assert ["r2", "r1"] == [each.request_id for each in one.newest("birds", 10)]
    assert ([], 1) == (all_joined(one), len(all_joined(one, "birds")))
    assert {} == one.recent("bees", 0.0)


def test_entities_count_once_in_each_rollout_at_the_share_of_their_first_request(logs):
    """Expected entities are the sum of shares; while there is no share nobody is exposed."""
    one, other = logs
    one.append([request("r0", "early", share=0.0)])
    one.append([request("r1", "x", share=0.25), request("r2", "y", share=0.25, challenger=True)])
    other.append([request("r3", "x", share=0.75, challenger=True), request("r4", "early")])
    found = one.traffic(P, R)

    assert (2, 1) == (found["champion"].entities, found["challenger"].entities)
    assert pytest.approx(0.75 + 0.75 + 0.5) == found["champion"].expected
    assert pytest.approx(0.25 + 0.25 + 0.5) == found["challenger"].expected
    assert (3, 2) == (found["champion"].requests, found["challenger"].requests)
    none = Traffic(latencies=(0,) * (len(LATENCY_BOUNDS) + 1))
    assert {"champion": none, "challenger": none} == one.traffic(P, "no such rollout")


def test_errors_and_latencies_are_counted_by_arm_and_by_variant(logs):
    """A failure counts against the assigned variant; a latency in the bucket that holds it."""
    fast, slow = LATENCY_BOUNDS[3], LATENCY_BOUNDS[-1] * 2
    logs[0].append(
        [
            request("r1", latency=fast, challenger=True, failed=True, served="a"),
            request("r2", latency=slow, challenger=True, at=NOON + 120),
            request("r3", latency=0.0),
        ]
    )
    challenger = logs[1].traffic(P, R)["challenger"]

    assert (2, 1) == (challenger.requests, challenger.errors)
    assert (1, 1, 2) == (
        challenger.latencies[3],
        challenger.latencies[-1],
        sum(challenger.latencies),
    )
    assert {"a": 1, "b": 2} == {k: v.requests for k, v in logs[1].recent(P, NOON).items()}
    assert {"b": 1} == {k: v.requests for k, v in logs[1].recent(P, NOON + 60).items()}
    assert [3, 1, 0] == [logs[1].count(P, NOON + minute * 60) for minute in (0, 1, 3)]


def test_an_outcome_is_joined_once_and_the_same_again_is_known(logs):
    """The first of an entity is marked; another value, or another index, is refused whole."""
    one, other = logs
    one.append([request("r1", "x"), request("r2", "x"), request("r3", "z", share=0.0)])

    assert ["joined", "known"] == one.tell(P, "r1", [told(), told()])
    assert ["known", "joined"] == other.tell(P, "r1", [told(at=1.0), told("lily", 1)])
    assert ["joined"] == other.tell(P, "r2", [told(1)])
    assert ["known"] == other.tell(P, "r2", [told(1.0)])
    assert ["joined"] == other.tell(P, "r3", [told()])
    with pytest.raises(Conflict, match='has the outcome "rose" already'):
        one.tell(P, "r1", [told("lily")])
    with pytest.raises(Conflict):
        one.tell(P, "r2", [told(2, 1), told(3, 1)])
    with pytest.raises(BadObject, match="no record 2"):
        one.tell(P, "r2", [told("lily", 1), told("rose", 2)])
    for wrong in (told(float("nan"), 1), told({1, 2}, 1), told("x", -1), told("x", True)):
        with pytest.raises(BadObject):
            one.tell(P, "r2", [wrong])
    found = all_joined(one)
    assert [("r1", 0, True), ("r1", 1, False), ("r2", 0, False), ("r3", 0, False)] == [
        (each.request_id, each.index, each.first) for each in found
    ]
    assert ("rose", 0.9, "rose", "lily", 0.2) == (
        found[0].label, found[0].score, found[0].outcome, found[1].label, found[1].score
    )  # fmt: skip


def test_an_outcome_that_comes_first_waits_for_its_request(logs):
    """It is joined in the commit that logs the request; one that does not fit is kept aside."""
    one, other = logs

    assert ["waiting", "waiting"] == one.tell(P, "r1", [told(), told("lily", 7)])
    assert ["known"] == other.tell(P, "r1", [told()])
    with pytest.raises(Conflict):
        other.tell(P, "r1", [told("lily")])
    assert (2, 0) == (one.state(P).waiting, one.state(P).unjoinable)
    assert [True] == other.append([request("r1")])
    assert [("r1", 0)] == [(each.request_id, each.index) for each in all_joined(one)]
    assert (0, 1) == (one.state(P).waiting, one.state(P).unjoinable)
    assert ["known"] == one.tell(P, "r1", [told()])


def test_an_unanswered_request_takes_no_outcome(logs):
    """There is nothing to compare it with, whichever comes first."""
    failed = request("r1", served="", failed=True, answers=b"[]")
    logs[0].append([failed])
    with pytest.raises(BadObject, match="not answered"):
        logs[1].tell(P, "r1", [told()])
    logs[0].tell(P, "r2", [told()])
    logs[1].append([replace(failed, request_id="r2")])

    assert ([], 1) == (all_joined(logs[0]), logs[0].state(P).unjoinable)


def test_replay_gets_the_newest_captured_and_answered_requests(logs):
    """Newest first; what was not captured or not answered is not among them."""
    logs[0].append([request(f"r{i}") for i in range(5)])
    logs[0].append([request("none", records=None), request("failed", served="", failed=True)])

    assert ["r4", "r3"] == [each.request_id for each in logs[1].newest(P, 2)]


def test_pruning_drops_what_the_lake_has_and_nothing_else(logs):
    """Captured records go after the newest ones; joining still works for requests without them."""
    one, other = logs
    one.append([request(f"r{i}", at=time.time()) for i in range(10)])
    offsets = [each.offset for each in other.after(P, 0, 100)]
    other.prune(P, offsets[7], 0, 3)

    assert [f"r{i}" for i in (9, 8, 7)] == [each.request_id for each in one.newest(P, 10)]
    assert offsets == [each.offset for each in one.after(P, 0, 100)]
    assert ["joined"] == one.tell(P, "r0", [told()])
    one.prune(P, offsets[8], 0, 0)
    assert ["r9"] == [each.request_id for each in other.newest(P, 10)]
    assert [False] == other.append([request("r0")])


def test_an_outcome_three_days_late_still_counts_for_its_arm(logs):
    """Its request went to the lake and its records were dropped meanwhile; the join stands."""
    one, other = logs
    then = time.time() - 3 * 86400
    one.append([request("r1", "x", challenger=True, at=then), request("r2", "y")])
    newest = one.state(P).newest
    one.prune(P, newest, 0, 0)

    assert ["joined"] == other.tell(P, "r1", [told(at=time.time())])
    (late,) = all_joined(one)
    assert (True, True, 0.5, "rose") == (late.first, late.challenger, late.share, late.label)
    assert late.told_at - late.predicted_at > 3 * 86400 - 60


def test_what_is_too_old_expires_and_is_counted(log_place):
    """Requests and outcomes beyond the days go once flushed; what waited in vain is counted."""
    with closing(log_place.client(days=1e-9)) as log:
        log.append([request("r1", "x"), request("r2", "y", at=time.time() + 3600)])
        log.append([request("r3", "z")])
        log.tell(P, "r1", [told()])
        log.tell(P, "never", [told(), told("lily", 1)])
        last = log.state(P)
        log.prune(P, last.newest - 1, last.joined, 100)

        assert ["r2", "r3"] == [each.prediction.request_id for each in log.after(P, 0, 10)]
        assert ([], 0, 2) == (all_joined(log), log.state(P).waiting, log.state(P).expired)
        before = log.traffic(P, R)["champion"]
        assert (3, 3) == (before.requests, before.entities)
        log.append([request("r4", "new")])
        assert log.after(P, 0, 10)[-1].offset > last.newest


def test_buffered_requests_are_there_within_a_second(logs):
    """At once a repeated id is known; closing writes what is left."""
    one, other = logs

    assert [True, False] == one.append([request("r1"), request("r1")], durable=False)
    assert [False] == one.append([request("r1")], durable=False)
    deadline = time.monotonic() + 1.0
    while other.find(P, "r1") is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [False] == other.append([request("r1")], durable=False)
    one.append([request("r2")], durable=False)
    one.close()
    assert request("r2") == other.find(P, "r2")
    assert [True] == one.append([request("r3")])
