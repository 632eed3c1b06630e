"""Events of a source that does not tell in order get their places in few looks at the ledger."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from ml_control.core.records import Event
from ml_control.local.registry import SqliteTables
from ml_control.registry import Registry
from ml_control.services.arrivals import ordering

P, DAY = "flowers", "2026-05-01"


def event(key, number, day=DAY):
    return Event(
        pipeline=P, partition=day, bucket="raw", key=f"{P}/dt={day}/{key}.csv", size=1,
        version=f"v{number}", path=f"raw/{P}/dt={day}/{key}.csv#v=v{number}", put=f"v{number}",
        order=f"{number:08X}",
    )  # fmt: skip


@pytest.fixture
def platform(tmp_path):
    """A registry whose looks at the ledger are counted."""
    tables = SqliteTables(tmp_path / "registry.db")
    registry = Registry(tables, lease_seconds=30.0)
    looks = []
    query = tables.query

    def counted(table, pk, **more):
        looks.append(more["prefix"])
        return query(table, pk, **more)

    tables.query = counted
    later = SimpleNamespace(later=lambda path, than: None)
    yield SimpleNamespace(registry=registry, notifications=later, looks=looks)
    tables.close()


def told(platform, batch):
    """What becomes of a batch, and how many looks it took."""
    platform.looks.clear()
    return ordering.in_order(platform, batch), len(platform.looks)


@pytest.mark.parametrize("seed", range(5))
def test_a_look_at_a_partition_says_what_looks_at_its_keys_say(platform, monkeypatch, seed):
    """Versions in any order, over two days: the same places, by two looks instead of one each."""
    chance = random.Random(seed)
    every = [event(n % 15, n, DAY if n % 3 else "2026-05-02") for n in range(1, 90)]
    chance.shuffle(every)
    first, then = every[:45], every[45:]
    events, numbers = ordering.in_order(platform, first)
    platform.registry.ledger.record(P, events, [True] * 45, numbers=numbers)
    done = [one for one in events if chance.random() < 0.3]
    platform.registry.ledger.move(list(platform.registry.ledger.events(P))[: len(done)], "done", "")

    whole, few = told(platform, then)
    monkeypatch.setattr(ordering, "_MANY", 1000)
    single, many = told(platform, then)

    assert single == whole
    assert (2, 44) == (few, many)
    assert {"pending", "superseded"} == {one.state for one in whole[0]}


def test_a_partition_of_many_is_not_read_for_a_few(platform):
    """A tick reads as much with a large partition as with a small one."""
    some = [event(f"old{n}", n) for n in range(1, 101)]
    platform.registry.ledger.record(P, some, [True] * 100, numbers=[0] * 100)

    _, looks = told(platform, [event(f"new{n}", n) for n in range(200, 210)])

    assert 11 == looks


def test_versions_that_are_told_of_backwards_never_take_the_place_of_a_later_one(platform):
    """However many intakes each bring an older version, the one that was put last stays last."""
    ledger = platform.registry.ledger
    for number in range(60, 0, -1):
        events, numbers = ordering.in_order(platform, [event("a", number)])
        ledger.record(P, events, [True], numbers=numbers)

    assert [f"v{n}" for n in range(1, 61)] == [
        e.version for e in sorted(ledger.events(P), key=lambda e: e.seq)
    ]
    assert 60 == len({e.seq for e in ledger.events(P)} - {0})


def test_each_old_version_that_waits_alone_is_another_piece_of_work(platform):
    """Attempts are counted by the newest number that waits: they must not add up over versions."""
    ledger = platform.registry.ledger
    newest = []
    for number in range(30, 0, -1):
        events, numbers = ordering.in_order(platform, [event("a", number)])
        ledger.record(P, events, [True], numbers=numbers)
        (mark,) = ledger.waiting(P)
        assert mark == ledger.marks.refresh(P, DAY)
        newest.append(mark.newest)
        ledger.move(list(ledger.events(P, state="pending")), "quarantined", "unusable")

    assert 30 == len(set(newest))
