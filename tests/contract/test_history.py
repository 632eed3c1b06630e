"""Rollouts and the history of decisions: written together, chained, and checked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_control.core.records import Rollout
from ml_control.errors import Conflict, Unknown
from ml_control.ports import Item, Put
from ml_control.registry import Registry

P = "flowers"
LEDGER = "control-ledger"
HEAD = "~head"


@pytest.fixture
def one(registries):
    """The first client."""
    return registries[0]


@pytest.fixture
def other(registries):
    """The second client."""
    return registries[1]


def write(registry, before, fence, **change):
    return registry.rollouts.write(
        before,
        before.model_copy(update=change),
        fence,
        action="promote",
        because="it passed",
        actor="run",
    )


def test_a_rollout_moves_by_compare_and_set(one, other, clock):
    """Of two that changed the same rollout the second is refused, and no decision is recorded."""
    fence = one.leases.fence(one.leases.acquire(P, "endpoint", "run"))
    empty = other.rollouts.get(P)
    assert Rollout(pipeline=P, id=f"{P}-0") == empty
    first = write(one, empty, fence, champion="v1", weights={"a": 1.0})

    with pytest.raises(Conflict, match="someone else"):
        write(other, empty, fence, champion="v2", weights={"b": 1.0})

    assert (1, "a", clock.now) == (first.version, first.live, first.updated_at)
    assert first == other.rollouts.get(P)
    assert ["v1"] == [decision.subject for decision in other.history.decisions(P)]
    assert 2 == write(other, first, fence, champion="v2").version
    assert 2 == one.history.verify(P)


def test_a_zombie_moves_no_traffic(one, other, clock):
    """A rollout write with a lost lease leaves neither the rollout nor a decision."""
    fence = one.leases.fence(one.leases.acquire(P, "endpoint", "zombie"))
    clock.now += 31
    other.leases.acquire(P, "endpoint", "heir")

    with pytest.raises(Conflict):
        write(one, one.rollouts.get(P), fence, champion="v1")
    assert (0, 0) == (other.rollouts.get(P).version, other.history.verify(P))


def test_other_decisions_do_not_stop_a_decision(one, other):
    """When another decision came first, the writes are asked for again and go after it."""
    asked = []

    def writes():
        if not asked:
            other.history.append(P, "note", "s", "because", actor="x")
        asked.append(True)
        return [Put(LEDGER, Item("p", "s", {"asked": len(asked)}), 0)]

    decision = one.history.append(P, "promote", "s", "because", actor="y", writes=writes)

    assert (2, 2) == (decision.seq, other.history.verify(P))
    assert {"asked": 2} == other.tables.get(LEDGER, "p", "s").body


def test_concurrent_appends_keep_one_chain(two, clock):
    """Four writers and a checker at once: every decision is in one unbroken chain."""
    done = threading.Event()

    def append(number):
        registry = Registry(two[number % 2], clock=clock)
        for i in range(15):
            registry.history.append(P, "note", f"{number}-{i}", "because", actor=f"w{number}")
        two[number % 2].close()

    def check():
        registry, lengths = Registry(two[0], clock=clock), [0]
        while not done.is_set():
            lengths.append(registry.history.verify(P))
        two[0].close()
        return lengths

    with ThreadPoolExecutor(5) as pool:
        checked = pool.submit(check)
        try:
            list(pool.map(append, range(4)))
        finally:
            done.set()
        assert sorted(checked.result()) == checked.result()

    history = Registry(two[1], clock=clock).history
    assert 60 == history.verify(P) == len({d.subject for d in history.decisions(P)})


def replaced(tables, sk, body):
    tables.transact([Put(LEDGER, Item(f"decision#{P}", sk, body), None)])


@pytest.mark.parametrize(
    ("field", "value"), [("because", "no reason"), ("at", 0.0), ("details", {"a": 2}), ("odd", 1)]
)
@pytest.mark.parametrize("seq", [1, 2, 3])
def test_a_changed_decision_is_found(one, other, seq, field, value):
    """Any field of any decision that was changed afterwards breaks the chain, by its number."""
    for _ in range(3):
        one.history.append(P, "note", "s", "because", actor="x", details={"a": 1})
    sk = f"{seq:012d}"
    body = dict(one.tables.get(LEDGER, f"decision#{P}", sk).body)
    assert 3 == other.history.verify(P)
    replaced(one.tables, sk, {**body, field: value})

    with pytest.raises(Unknown, match=f"decision {seq}"):
        other.history.verify(P)
    replaced(one.tables, sk, body)
    assert 3 == other.history.verify(P)


@pytest.mark.parametrize(
    "gone",
    [[1], [2], [3], [2, 3], [HEAD], [3, HEAD], [1, 2, 3]],
    ids=lambda gone: " and ".join(str(each) for each in gone),
)
def test_a_removed_decision_is_found(storage, one, other, gone):
    """A decision removed from the beginning, the middle or the end, or the head, is missed."""
    for _ in range(3):
        one.history.append(P, "note", "s", "because", actor="x")
    assert 3 == other.history.verify(P)
    for seq in gone:
        storage.remove(LEDGER, f"decision#{P}", HEAD if seq == HEAD else f"{seq:012d}")

    with pytest.raises(Unknown):
        other.history.verify(P)


def test_a_decision_that_was_slipped_in_is_found(one, other):
    """A well-formed decision after the last one, with the right hash before it, is no decision."""
    last = [one.history.append(P, "note", "s", "because", actor="x") for _ in range(3)][-1]
    forged = last.model_copy(update={"seq": 4, "previous": last.hash}).sealed()
    replaced(one.tables, f"{4:012d}", forged.to_json())

    with pytest.raises(Unknown):
        other.history.verify(P)


def test_each_pipeline_has_a_chain_of_its_own(one, other):
    """A break in one pipeline's history says nothing about another's; an empty one is whole."""
    one.history.append(P, "note", "s", "because", actor="x")
    one.history.append("other", "note", "s", "because", actor="x")
    replaced(one.tables, f"{1:012d}", {})

    assert (1, 0) == (other.history.verify("other"), other.history.verify("new"))
    with pytest.raises(Unknown, match="flowers"):
        other.history.verify(P)
