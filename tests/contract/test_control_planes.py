"""Two control planes at once on one registry, as real processes that die or sleep in mid-work."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter

from ml_control.core.records import Event
from ml_control.ports import Item, Put
from ml_control.registry import Registry

P, DAY, STAGE = "flowers", "2026-11-22", "2026-11-22"
LEDGER = "control-ledger"

PUBLISH = """
from ml_control.errors import Conflict
from ml_control.registry import Registry
registry = Registry(tables, lease_seconds=1.0)
with registry.leases.hold("flowers", "2026-11-22", "zombie") as lease:
    print("held", flush=True)
    sys.stdin.readline()
    put = Put("control-ledger", Item("p", "manifest", {"by": "zombie"}), None)
    try:
        tables.transact([registry.leases.fence(lease), put])
        print("published", flush=True)
    except Conflict as error:
        print("Conflict", error.object, flush=True)
"""

RECORD = """
from ml_control.core.records import Event
from ml_control.registry import Registry
events = [Event.model_validate_json(line) for line in sys.stdin.readline().split("\\t")]
ledger = Registry(tables).ledger
print("ready", flush=True)
for start in range(0, len(events), 10):
    batch = events[start : start + 10]
    ledger.record("flowers", batch, [False] * len(batch))
    print(start, flush=True)
print("done", flush=True)
"""


def events(count):
    return [
        Event(
            pipeline=P,
            partition=f"2026-11-2{i % 3}",
            bucket="raw",
            key=f"{P}/{i}.csv",
            version=f"v{i}",
            size=1,
            path=f"raw/{P}/{i}.csv",
        )
        for i in range(count)
    ]


def heir_of(registry):
    """The lease, once the one before it has run out."""
    deadline = time.time() + 20
    while (lease := registry.leases.holder(P, STAGE)) is not None:
        assert "zombie" == lease.holder
        assert time.time() < deadline
        threading.Event().wait(0.02)
    return registry.leases.acquire(P, STAGE, "heir")


def test_the_work_of_a_killed_control_plane_is_taken_over(storage):
    """Killed while it holds a lease: nothing of it was published, and the next one goes on."""
    registry = Registry(storage.client(), lease_seconds=1.0)
    process = storage.process(PUBLISH)
    assert "held\n" == process.stdout.readline()
    process.kill()
    process.wait()

    heir = heir_of(registry)
    manifest = Item("p", "manifest", {"by": "heir"})
    registry.tables.transact([registry.leases.fence(heir), Put(LEDGER, manifest, 0)])
    assert 2 == heir.token


def test_a_control_plane_that_slept_past_its_lease_publishes_nothing(storage):
    """Stopped, overtaken and woken: its fence fails, and what the heir published stays."""
    registry = Registry(storage.client(), lease_seconds=1.0)
    process = storage.process(PUBLISH)
    assert "held\n" == process.stdout.readline()
    process.send_signal(signal.SIGSTOP)

    heir = heir_of(registry)
    manifest = Item("p", "manifest", {"by": "heir"})
    registry.tables.transact([registry.leases.fence(heir), Put(LEDGER, manifest, 0)])
    process.send_signal(signal.SIGCONT)
    process.stdin.write("publish\n")
    process.stdin.flush()

    assert f"Conflict lease#{P} {STAGE}\n" == process.stdout.readline()
    assert 0 == process.wait(20)
    assert {"by": "heir"} == registry.tables.get(LEDGER, "p", "manifest").body
    assert heir.nonce == registry.tables.get(LEDGER, f"lease#{P}", STAGE).body["nonce"]


def test_intakes_that_overlap_and_die_record_every_event_once(storage):
    """Three processes told of the same events, one killed: told again, each is there once, none
    has another's number, and the sums are those of the events.
    """
    told = events(30)
    processes = [storage.process(RECORD) for _ in range(3)]
    for place, process in enumerate(processes):
        mine = told[10 * place :] + told[: 10 * place]
        process.stdin.write("\t".join(event.model_dump_json() for event in mine) + "\n")
        process.stdin.flush()
    assert ["ready\n"] * 3 == [process.stdout.readline() for process in processes]
    assert processes[0].stdout.readline()
    processes[0].kill()
    assert all(process.stdout.read().endswith("done\n") for process in processes[1:])

    ledger = Registry(storage.client()).ledger
    ledger.record(P, told, [False] * len(told))
    found = list(ledger.events(P))
    assert {(e.key, e.version) for e in told} == {(e.key, e.version) for e in found}
    assert {1} == set(Counter(event.seq for event in found).values())
    assert len(told) == len(found) == sum(mark.objects for mark in ledger.waiting(P))
