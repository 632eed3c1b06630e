"""Approvals and the sums of rollouts: one answer, one write, whoever comes second is told."""

from __future__ import annotations

import pytest

from ml_control.errors import Conflict, Unknown
from ml_control.ports import Item, Put
from ml_control.registry.experiments import Evidence

P, V = "flowers", "v" * 64


def test_the_first_answer_about_a_version_is_final(registries):
    """The same answer again changes nothing; another one is refused naming who gave the first."""
    one, other = registries
    first = one.approvals.write(P, V, "approved", actor="anna", because="good")

    again = other.approvals.write(P, V, "approved", actor="bert", because="also good")
    with pytest.raises(Conflict, match="anna approved it already: good"):
        other.approvals.write(P, V, "rejected", actor="bert", because="no")

    assert first == again == other.approvals.get(P, V)
    assert None is other.approvals.get(P, "w" * 64)
    told = [(d.action, d.actor, d.because) for d in one.history.decisions(P)]
    assert [("approved", "anna", "good")] == told


def test_two_answers_at_the_same_moment(registries, monkeypatch):
    """Both saw no answer: the one that was written first stands, and history has one decision."""
    one, other = registries
    seen = one.approvals.get
    monkeypatch.setattr(
        one.approvals,
        "get",
        lambda *a: seen(*a) if list(other.history.decisions(P)) else _then_reject(other),
    )

    with pytest.raises(Conflict, match="bert rejected it already"):
        one.approvals.write(P, V, "approved", actor="anna", because="good")

    assert 1 == one.history.verify(P)


def _then_reject(registry):
    """Nothing is there yet, and someone else writes at once."""
    registry.approvals.write(P, V, "rejected", actor="bert", because="bad")


def test_sums_and_offset_move_together_or_not_at_all(registries):
    """Of two that read the same outcomes one adds them up; neither sums nor cursor move twice."""
    one, other = registries
    start = one.experiments.cursor(P)
    sums = Evidence(pipeline=P, rollout="r", offset=7)
    assert ((0, 0), (None, 0)) == (start, other.experiments.evidence(P, "r"))
    one.experiments.put(sums, 0, start, 7, P)

    for version, cursor in ((0, one.experiments.cursor(P)), (1, start)):
        with pytest.raises(Conflict):
            other.experiments.put(sums, version, cursor, 9, P)

    assert ((7, 1), (sums, 1)) == (
        other.experiments.cursor(P),
        other.experiments.evidence(P, "r"),
    )


def test_damaged_sums_are_unknown(registries):
    """A record that is none of ours is never taken for evidence."""
    one, other = registries
    item = Item(P, "evidence#r", {"offset": "many"})
    one.tables.transact([Put("ab-test-config", item, 0)])

    with pytest.raises(Unknown, match="its record is damaged") as refused:
        other.experiments.evidence(P, "r")

    assert refused.value.next


def test_tries_are_counted_for_each_step(registries, clock):
    """Another step begins at one."""
    one, other = registries
    for step in ("s", "s", "t"):
        one.experiments.tried(P, step, "no memory")

    found = other.experiments.tries(P)

    assert ("t", 1, clock.now, "no memory") == (found.step, found.count, found.at, found.reason)
