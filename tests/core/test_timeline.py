"""What was live when is told by the decisions alone, also by those of earlier versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.moments import moment_of
from ml_control.core.records import Decision, Rollout, Variant
from ml_control.core.timeline import Span, change_of, kind_of, moment, rollout_of, run_of, spans
from ml_control.errors import InvalidSpec

P = "flowers"
RUN = "596ff3de-7d60-4e1d-8e70-a895ed9afc26"


def variant(version):
    return Variant(endpoint="e", model_version=version, verdict="k", proven_live_at=0.0)


def rollout(champion, weights, **change):
    variants = {"a": variant("v1"), "b": variant("v2")}
    return Rollout(
        pipeline=P, id=f"{P}-1", champion=champion, variants=variants, weights=weights, **change
    )


def decision(seq, at, action, record=None, **change):
    details = {"record": record.to_json()} if record else {}
    subject = (record.champion or "") if record else ""
    found = {"subject": subject, "because": f"because of {seq}", "actor": RUN, "details": details}
    return Decision(pipeline=P, seq=seq, at=at, action=action, **{**found, **change})


FIRST = rollout("v1", {"a": 1.0, "b": 0.0})
SPLIT = rollout("v1", {"a": 0.5, "b": 0.5}, state="in_progress", phase="experiment", challenger="b")
SECOND = rollout("v2", {"a": 0.0, "b": 1.0})
STORY = [
    decision(1, 10.0, "gated: passed", subject="v1"),
    decision(2, 11.0, "promoted", FIRST),
    decision(3, 20.0, "traffic", SPLIT),
    decision(4, 30.0, "promoted", SECOND),
    decision(5, 40.0, "rolled_back", FIRST),
    decision(6, 50.0, "halted", subject="v1", details={"variant": "a", "next": "ask"}),
]


def at(time, story=STORY):
    return moment(reversed(story), time)


@pytest.mark.parametrize(
    ("time", "record", "crowned"),
    [(10.5, None, None), (11.0, FIRST, 2), (25.0, SPLIT, 2), (39.9, SECOND, 4), (45.0, FIRST, 5)],
)
def test_the_routing_at_a_time_is_that_of_the_last_decision_before(time, record, crowned):
    """Promotion, split and rollback each count, and who put the champion there is named."""
    found = at(time)

    assert (record, ()) == (found.rollout, found.stopped)
    assert crowned == (found.crowned.seq if found.crowned else None)


def test_a_halt_stops_a_variant_without_changing_the_routing():
    """The routing stands, and what was stopped since is told beside it."""
    found = at(55.0)

    assert (FIRST, [6]) == (found.rollout, [one.seq for one in found.stopped])


def test_a_halt_before_the_last_routing_is_over():
    """What serves now was proven after it."""
    again = decision(7, 60.0, "promoted", SECOND)

    assert () == at(61.0, [*STORY, again]).stopped


def test_where_the_clock_was_set_back_the_later_decision_counts():
    """The chain is the order: a decision written with an earlier time replaces the one before."""
    late = decision(7, 12.0, "promoted", SECOND)

    assert SECOND == at(100.0, [*STORY[:5], late]).rollout
    assert SECOND == at(12.5, [*STORY[:5], late]).rollout


def test_decisions_of_earlier_versions_are_read():
    """They hold champion, variants and weights; that the rest is unknown is said."""
    details = {
        "weights": {"a": 1.0},
        "variants": {"a": variant("v1").to_json()},
    }
    old = decision(1, 5.0, "promoted", subject="v1", details=details)
    found = at(6.0, [old])

    assert found.rollout is not None
    assert ("a", "v1", {"a": 1.0}) == (
        found.rollout.live,
        found.rollout.champion,
        found.rollout.weights,
    )
    assert (False, 1) == (found.whole, found.crowned.seq)


def test_a_record_that_makes_no_sense_is_no_routing():
    """It is passed over: the one before it is told."""
    broken = decision(3, 20.0, "promoted", details={"record": {"pipeline": P, "weights": "all"}})

    assert rollout_of(broken) is None
    assert FIRST == at(21.0, [*STORY[:2], broken]).rollout


@given(st.lists(st.sampled_from([FIRST, SPLIT, SECOND]), min_size=1, max_size=20), st.data())
def test_every_routing_can_be_told_again(records, data):
    """At any time the rebuilt record equals the one that was written last, field by field."""
    story = [decision(i + 1, float(i), "traffic", record) for i, record in enumerate(records)]
    place = data.draw(st.integers(0, len(records) - 1))

    found = at(place + 0.5, story)

    assert records[place] == found.rollout
    champion = records[place].champion
    first = place
    while first > 0 and records[first - 1].champion == champion:
        first -= 1
    assert first + 1 == found.crowned.seq


def test_when_each_model_took_traffic():
    """A share counts as traffic; a model that lost it and got it back has two spans."""
    found = spans(STORY)

    assert [Span(11.0, 30.0), Span(40.0)] == found["v1"]
    assert [Span(20.0, 40.0)] == found["v2"]


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("gated: refused", "gated"),
        ("training asked", "training"),
        ("deployed", "deployed"),
        ("shadowed", "shadow"),
        ("started", "challenger"),
        ("traffic", "step"),
        ("promoted", "promoted"),
        ("rolled_back", "rolled back"),
        ("kept", "kept"),
        ("released", "retired"),
        ("retired", "retired"),
        ("approved", "approval"),
        ("rejected", "approval"),
        ("paused", "pause"),
        ("resumed", "pause"),
        ("halted", "halted"),
        ("restored", "restored"),
        ("rebased", "other"),
    ],
)
def test_each_action_has_its_kind(action, kind):
    """Every action that is written is one of the timeline's kinds."""
    assert kind == kind_of(decision(1, 0.0, action))


def test_runs_are_found_and_people_are_not():
    """A run's id is found in the actor or in the details; a person is no run."""
    assert RUN == run_of(decision(1, 0.0, "promoted"))
    assert run_of(decision(1, 0.0, "paused", actor="ada")) is None
    assert RUN == run_of(decision(1, 0.0, "x", actor="ada", details={"run": RUN}))


def test_a_change_is_said_in_words():
    """Champion and traffic, and nothing where neither moved."""
    assert "champion v2, a 0% b 100%" == change_of(SPLIT, SECOND)
    assert "a 50% b 50%" == change_of(FIRST, SPLIT)
    assert "" == change_of(FIRST, FIRST)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86400.0),
        ("1970-01-02T00:00:10", 86410.0),
        ("1970-01-02T01:00+01:00", 86400.0),
        ("2 h ago", 1_000_000.0 - 7200.0),
        ("90 s ago", 999_910.0),
        ("now", 1_000_000.0),
    ],
)
def test_times_as_people_write_them(text, seconds):
    """A date, a time with or without offset, or how long ago."""
    assert seconds == moment_of(text, 1_000_000.0, "--at")


@pytest.mark.parametrize("text", ["yesterday", "2 ago", "ago", "", "99999-01-01"])
def test_what_is_no_time_is_refused(text):
    """The refusal names the option and what may be written."""
    with pytest.raises(InvalidSpec, match="is no time"):
        moment_of(text, 0.0, "--at")
