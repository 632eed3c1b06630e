"""Rollouts and the history of decisions: written together, chained, and checked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
from storages import Storage

from ml_control.aws.anchors import LakeAnchors
from ml_control.core.records import Rollout
from ml_control.core.timeline import rollout_of
from ml_control.errors import Conflict, PlatformFailed, Unknown
from ml_control.lake import Lake
from ml_control.local.anchors import LocalAnchors
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


def test_history_alone_tells_the_whole_rollout(one, other):
    """Each decision holds the record that it wrote, with the evidence that it was made on."""
    fence = one.leases.fence(one.leases.acquire(P, "endpoint", "run"))
    before = one.rollouts.get(P)
    after = before.model_copy(update={"champion": "v1", "weights": {"a": 1.0}, "paused": True})
    written = one.rollouts.write(
        before, after, fence, action="promoted", because="x", actor="y", details={"golden": 3}
    )

    (decision,) = other.history.decisions(P)
    assert (written, True) == rollout_of(decision)
    assert 3 == decision.details["golden"]


def test_the_newest_decisions_are_read_without_the_others(storage, one, other, monkeypatch):
    """Newest first, in pages that join without gap; what is not asked for is not read."""
    count = storage.page * 6 // 5
    for i in range(count):
        one.history.append(P, "note", str(i), "because", actor="x")
    read = []
    query = other.tables.query
    monkeypatch.setattr(
        other.tables,
        "query",
        lambda *args, **kwargs: (read.append(item) or item for item in query(*args, **kwargs)),
    )

    first = list(islice(other.history.newest(P), 5))
    assert [count - i for i in range(5)] == [one.seq for one in first]
    assert len(read) < storage.page
    older = islice(other.history.newest(P, before=count - 4), 2)
    assert [count - 5, count - 6] == [decision.seq for decision in older]
    assert [2, 1] == [d.seq for d in other.history.newest(P, before=3)]


LOCAL = pytest.mark.parametrize("storage", ["local"], indirect=True)  # about its one file


@pytest.fixture
def file(tmp_path):
    """The file of the local anchors."""
    return tmp_path / "logs" / "history.anchors"


@pytest.fixture
def anchors(storage, file):
    """The anchors of the storage's platform."""
    if isinstance(storage, Storage):
        return LocalAnchors(file)
    return LakeAnchors(Lake.local(storage.lake))


@pytest.fixture
def anchored(two, clock, anchors):
    """A registry with anchors."""
    return Registry(two[0], clock=clock, anchors=anchors)


def remade(registry, change):
    """The whole chain made anew, consistently, as whoever may write the registry could."""
    previous, seq = "", 0
    for decision in list(registry.history.decisions(P)):
        made = decision.model_copy(update={**change(decision), "previous": previous}).sealed()
        replaced(registry.tables, f"{made.seq:012d}", made.to_json())
        previous, seq = made.hash, made.seq
    replaced(registry.tables, HEAD, {"seq": seq, "hash": previous})


def test_a_chain_made_anew_differs_from_its_anchors(anchored, anchors):
    """A verdict's decision edited with all hashes after it is found by what was noted outside."""
    registry = anchored
    registry.history.append(P, "gated: refused", "v1", "failed auc", actor="x")
    registry.history.append(P, "note", "s", "because", actor="x")
    assert 2 == registry.history.verify(P)
    remade(registry, lambda d: {"action": "gated: passed"} if d.seq == 1 else {})

    assert 2 == Registry(registry.tables).history.verify(P)  # the chain itself is whole
    with pytest.raises(Unknown, match=r"decision 1.*anchored"):
        registry.history.verify(P)
    assert [1] == [anchor.seq for anchor in anchors.of(P)]


def test_a_chain_cut_behind_its_anchors_is_found(storage, anchored):
    """A registry that went back in time lacks what was anchored."""
    registry = anchored
    first = registry.history.append(P, "promoted", "v1", "because", actor="x")
    registry.history.append(P, "promoted", "v2", "because", actor="x")
    storage.remove(LEDGER, f"decision#{P}", f"{2:012d}")
    replaced(registry.tables, HEAD, {"seq": 1, "hash": first.hash})

    with pytest.raises(Unknown, match="decision 2 was anchored"):
        registry.history.verify(P)


def test_a_restore_that_is_recorded_begins_anew(storage, anchored):
    """What was anchored after the backup was made is not asked for; what came before it is."""
    registry = anchored
    first = registry.history.append(P, "promoted", "v1", "because", actor="x")
    registry.history.append(P, "promoted", "v2", "because", actor="x")
    registry.history.append(P, "promoted", "v3", "because", actor="x")
    for seq in (2, 3):
        storage.remove(LEDGER, f"decision#{P}", f"{seq:012d}")
    replaced(registry.tables, HEAD, {"seq": 1, "hash": first.hash})
    registry.history.append(P, "restored", "v1", "from a backup", actor="x")
    assert 2 == registry.history.verify(P)
    remade(registry, lambda d: {"because": "another"} if d.seq == 1 else {})

    with pytest.raises(Unknown, match="decision 1"):
        registry.history.verify(P)


@LOCAL
def test_every_hundredth_decision_is_anchored(anchored, anchors):
    """Also where nothing is promoted for long, little can be made anew unseen."""
    registry = anchored
    for _ in range(201):
        registry.history.append(P, "note", "s", "because", actor="x")

    assert [100, 200] == [anchor.seq for anchor in anchors.of(P)]


@LOCAL
def test_a_torn_or_unwritable_anchor_harms_nothing(anchored, file):
    """A torn line is passed over and the next one is whole; without a file decisions go on."""
    registry = anchored
    registry.history.append(P, "promoted", "v1", "because", actor="x")
    file.write_bytes(file.read_bytes()[:-9])
    registry.history.append(P, "promoted", "v2", "because", actor="x")
    assert [2] == [anchor.seq for anchor in LocalAnchors(file).of(P)]
    file.unlink()
    file.mkdir()
    registry.history.append(P, "promoted", "v3", "because", actor="x")

    assert 3 == len(list(registry.history.decisions(P)))
    with pytest.raises(PlatformFailed, match=r"history\.anchors"):
        registry.history.verify(P)
