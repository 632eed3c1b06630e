"""What services do when a call was done and they are told that it failed, or cannot know."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import pytest
from suites import parts

from ml_control.core.records import Event
from ml_control.errors import Conflict, Retryable
from ml_control.local.registry import SqliteTables
from ml_control.local.stream import SqliteStream
from ml_control.ports import StreamRecord
from ml_control.registry import Registry
from ml_control.services.traffic import consumer
from ml_control.serving.handlers.records import Batch
from ml_control.testing.faults import Fault, FaultPlan, faulty

P, DAY = "flowers", "2026-11-22"
clock = parts().clock


@pytest.fixture
def tables(tmp_path):
    """A storage without faults."""
    found = SqliteTables(tmp_path / "registry.db")
    yield found
    found.close()


@pytest.fixture
def failing(tables, clock):
    """Registries over the storage in which the named calls fail."""

    def make(*faults):
        plan = FaultPlan(1, script=[Fault(*fault) for fault in faults])
        return Registry(faulty(tables, plan, "tables"), clock=clock)

    return make


def event(key):
    return Event(
        pipeline=P, partition=DAY, bucket="raw", key=f"{P}/{key}", version="v1", size=1,
        path=f"raw/{P}/{key}",
    )  # fmt: skip


def test_a_lease_that_was_got_without_being_told_is_held(failing):
    """The caller looks and finds its own nonce, instead of waiting for itself to run out."""
    lease = failing(("transact", 1, "after")).leases.acquire(P, "model", "run-1")

    other = failing()
    assert lease == other.leases.holder(P, "model")
    with pytest.raises(Conflict, match="run-1"):
        other.leases.acquire(P, "model", "run-2")


def test_a_lease_that_was_not_got_may_be_asked_for_again(failing):
    """A failure before anything was done stays one to try again after."""
    registry = failing(("transact", 1, "before"))
    with pytest.raises(Retryable, match=r"seed 1, before, call 1 of tables\.transact"):
        registry.leases.acquire(P, "model", "run-1")

    assert 1 == registry.leases.acquire(P, "model", "run-1").token


def test_a_lease_that_cannot_be_given_back_hides_no_outcome(failing, caplog):
    """What the work came to is told, an error or not; the lease runs out by itself."""
    registry = failing(("transact", 2, "before"), ("transact", 4, "before"))
    with registry.leases.hold(P, "model", "run-1"):
        pass
    with pytest.raises(ZeroDivisionError), registry.leases.hold(P, "endpoint", "run-1"):
        raise ZeroDivisionError

    assert 2 == len([line for line in caplog.messages if "was not given back" in line])
    assert registry.leases.holder(P, "model") is not None


def test_a_decision_that_was_written_without_being_told_is_made_once(failing):
    """Its own record in the chain says that it was made, also when others came after it."""
    registry, other = failing(("transact", 1, "after")), failing()

    first = registry.history.append(P, "note", "a", "because", actor="x")
    other.history.append(P, "note", "b", "because", actor="y")

    assert ["a", "b"] == [decision.subject for decision in other.history.decisions(P)]
    assert (1, 2) == (first.seq, other.history.verify(P))


def test_a_decision_that_was_overtaken_after_an_untold_write_is_made_once(failing, tables):
    """A platform's own retry is told Conflict for what its first try did: we look before we
    append again.
    """

    class Overtaken:
        """The first transaction is done, another writer's follows, and then comes a Conflict."""

        def __init__(self):
            self.first = True

        def __getattr__(self, name):
            return getattr(tables, name)

        def transact(self, writes):
            tables.transact(writes)
            if self.first:
                self.first = False
                failing().history.append(P, "note", "b", "because", actor="y")
                raise Conflict("p s", "moved", "read again")

    Registry(Overtaken()).history.append(P, "note", "a", "because", actor="x")

    assert ["a", "b"] == [decision.subject for decision in failing().history.decisions(P)]


def test_a_rollout_that_was_written_without_being_told_is_written_once(failing):
    """One decision, one version, and no Conflict with oneself."""
    registry = failing(("transact", 2, "after"))
    fence = registry.leases.fence(registry.leases.acquire(P, "deploy", "run"))
    before = registry.rollouts.get(P)

    written = registry.rollouts.write(
        before, before, fence, action="promoted", because="why", actor="run"
    )

    assert written == registry.rollouts.get(P)
    assert ["promoted"] == [one.action for one in registry.history.decisions(P)]


@pytest.mark.parametrize("nth", range(1, 5))
@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("call", ["transact", "write_each", "get"])
def test_recording_that_fails_anywhere_hides_nothing(failing, call, nth, kind):
    """Whichever call of it fails, the source tells again, and then every event waits, once."""
    registry, events = failing((call, nth, kind)), [event("a.csv"), event("b.csv")]
    for _ in range(nth + 1):  # each word of them, the last one without a fault
        with suppress(Retryable):
            registry.ledger.record(P, events, [True, True])

    found = list(registry.ledger.events(P))
    assert Counter(e.key for e in events) == Counter(e.key for e in found)
    assert {"pending"} == {e.state for e in found}
    assert [(DAY, 2)] == [(mark.partition, mark.objects) for mark in registry.ledger.waiting(P)]


@pytest.mark.parametrize("nth", range(1, 4))
@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("step", ["claim", "settle"])
def test_a_run_that_fails_at_the_ledger_is_done_by_the_next(failing, step, nth, kind):
    """Claims and outcomes that were written without being told cost a run, never an event."""
    failing().ledger.record(P, [event("a.csv"), event("b.csv")], [True, True])
    for run in ("run-1", "run-2"):
        registry = failing(("write_each", nth, kind)) if run == "run-1" else failing()
        with_fault = registry if step == "claim" else failing()
        try:
            claim = with_fault.ledger.claim(P, DAY, run)
            registry.ledger.settle(claim, lambda _: ("done", None))
        except Retryable:
            continue

    assert {"done"} == {e.state for e in failing().ledger.events(P)}
    assert [] == list(failing().ledger.waiting(P))


def test_numbers_are_not_given_twice_after_an_untold_write(failing):
    """Two writers that count up alike differ in their counter records, so that a caller which
    looks can tell its own.
    """
    one, other = failing(), failing()
    for registry, key in ((one, "a.csv"), (other, "b.csv")):
        registry.ledger.record(P, [event(key)], [True])
    item = one.tables.get("control-ledger", f"counter#{P}", "events")

    assert 2 == item.body["used"]
    assert 16 == len(item.body["by"])


@pytest.mark.parametrize("kind", ["before", "after"])
def test_records_that_were_parked_without_being_told_are_told_of(
    failing, tmp_path, monkeypatch, kind
):
    """A settling that was done although it failed parks records; people hear of it all the same,
    and once.
    """
    stream = SqliteStream(tmp_path / "stream")
    stream.put([StreamRecord(P, "k", b"no json")])
    plan = FaultPlan(1, script=[Fault("settle", 1, kind)])
    platform = SimpleNamespace(stream=faulty(stream, plan, "stream"), registry=failing())
    pipeline, snapshots = SimpleNamespace(name=P), SimpleNamespace(read=lambda _: None)

    def answered(records, *_):
        poison = {record.sequence: "BadObject: no JSON" for record in records}
        return Batch(predictions=[], done=[], failed={}, poison=poison)

    monkeypatch.setattr(consumer, "answer_records", answered)
    monkeypatch.setattr(consumer, "asking", lambda _: None)
    platform.registry.clock = lambda: 1.0
    for _ in range(2):
        with suppress(Retryable):
            consumer.consume_batch(platform, pipeline, snapshots=snapshots)

    assert 1 == stream.state(P).parked
    (alert,) = platform.registry.alerts.open(P)
    assert ("stream-parked", True) == (alert.kind, "1 records" in alert.reason)
    stream.close()
