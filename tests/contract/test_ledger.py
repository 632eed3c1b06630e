"""The ledger: no event is lost, whoever records, claims, crashes or settles at the same time."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_control.core.records import Event
from ml_control.registry import Registry

P, DAY = "flowers", "2026-11-22"


def event(key="a.csv", version="v1", partition=DAY, **fields):
    return Event(
        pipeline=P,
        partition=partition,
        bucket="raw",
        key=f"{P}/{key}",
        version=version,
        size=1,
        path=f"raw/{P}/{partition}/{key}.{version}",
        **fields,
    )


def states(ledger):
    return {(e.key.removeprefix(f"{P}/"), e.version): e.state for e in ledger.events(P)}


def newest(ledger, key="a.csv"):
    """The version of a key that was put last, as a run sees it."""
    return max((e for e in ledger.events(P) if e.key == f"{P}/{key}"), key=lambda e: e.seq).version


def run_all(ledger, run="run", outcome="done"):
    """A run that takes what is open; all but the newest version of a key are superseded."""
    claim = ledger.claim(P, DAY, run)
    last = {e.key: e.version for e in sorted(claim, key=lambda e: e.seq)}
    return ledger.settle(
        claim, lambda e: (outcome if last[e.key] == e.version else "superseded", None)
    )


@pytest.fixture
def ledgers(registries):
    """Two ledgers over one storage."""
    return tuple(registry.ledger for registry in registries)


def test_recording_twice_is_recording_once(ledgers, clock):
    """Word of a version that comes again, from whoever, neither adds nor changes anything."""
    one, other = ledgers
    assert 2 == one.record(P, [event(), event("b.csv")], [False, True])
    before = list(one.events(P))
    clock.now += 60

    for fresh in (False, True):
        assert 0 == other.record(P, [event(), event("b.csv")], [fresh, fresh])
    assert before == list(other.events(P))
    assert {"pending": 2} == {k: v for k, v in other.counts(P).items() if v}
    assert 0 == one.record(P, [], [])


def test_a_finished_event_does_not_come_back(ledgers):
    """Word of a current version that is done changes nothing, even word of a fresh put."""
    one, other = ledgers
    one.record(P, [event()], [True])
    run_all(one)

    assert 0 == other.record(P, [event()], [True])
    assert {("a.csv", "v1"): "done"} == states(other)


def test_a_version_put_again_is_current_again(ledgers):
    """A, then B, then A: the older content is pending again and newer than B."""
    one, other = ledgers
    for version in ("A", "B"):
        one.record(P, [event(version=version)], [True])
        run_all(one)

    assert 0 == other.record(P, [event(version="A")], [False])
    assert 1 == other.record(P, [event(version="A")], [True])
    assert {("a.csv", "A"): "pending", ("a.csv", "B"): "done"} == states(one)
    assert "A" == newest(one)


@pytest.mark.parametrize("claimed", [False, True])
def test_a_version_put_again_before_any_run_is_current(ledgers, claimed):
    """A, then B, then A with no finished run between: A is what the next run takes as newest."""
    one, other = ledgers
    for version in ("A", "B"):
        one.record(P, [event(version=version)], [True])
    if claimed:
        one.claim(P, DAY, "slow run")

    other.record(P, [event(version="A")], [True])
    run_all(one)

    assert "A" == newest(other)
    assert {("a.csv", "A"): "done", ("a.csv", "B"): "superseded"} == states(other)


def test_repeated_notices_keep_the_order_of_the_puts(ledgers):
    """An intake that dies again and again before acknowledging leaves the last put current."""
    one, other = ledgers
    one.record(P, [event(version="A")], [True])
    run_all(one)
    for _ in range(3):
        other.record(P, [event(version="A"), event(version="B")], [True, True])

    assert "B" == newest(one)


def test_an_older_content_put_after_the_clock_was_set_back_is_current(ledgers, clock):
    """A, B, then A again with an earlier clock: it is another put; word of it again is not."""
    one, other = ledgers
    for version in ("A", "B"):
        one.record(P, [event(version=version, put=f"first {version}")], [True])
        run_all(one)
    clock.now -= 1000

    assert 1 == other.record(P, [event(version="A", put="second A")], [True])
    assert 0 == one.record(P, [event(version="A", put="second A")], [True])
    assert ("A", "pending") == (newest(one), states(one)["a.csv", "A"])


def test_what_waits_is_summed_and_survives_a_death_in_between(ledgers, clock, monkeypatch):
    """A writer that dies between its events and the sum hides nothing from the next reader."""
    one, other = ledgers
    one.record(P, [event("a.csv")], [True])
    clock.now += 10

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(one.marks, "account", die)
        with pytest.raises(KeyboardInterrupt):
            one.record(P, [event("b.csv"), event("c.csv", partition="2026-11-23")], [True, True])

    found = {m.partition: (m.objects, m.last_at - m.first_at) for m in other.waiting(P)}
    assert {DAY: (2, 10.0), "2026-11-23": (1, 0.0)} == found
    run_all(other)
    assert ["2026-11-23"] == [mark.partition for mark in one.waiting(P)]
    assert not one.is_open(P, DAY)


@pytest.mark.parametrize("state", ["quarantined", "superseded", "parked"])
def test_a_put_revives_what_was_set_aside(ledgers, state):
    """A version that was set aside is tried again when it is put again, keeping its attempts."""
    one, other = ledgers
    one.record(P, [event()], [True])
    run_all(one, outcome=state)

    assert 0 == other.record(P, [event()], [False])
    assert 1 == other.record(P, [event()], [True])
    assert [("pending", 1, None)] == [(e.state, e.attempt, e.run) for e in one.events(P)]


def test_keys_may_hold_the_separator(ledgers):
    """'#' in names mixes up neither versions nor partitions nor keys."""
    one, other = ledgers
    found = [event("a"), event("a#v1"), event("a#b#c"), event("#"), event("a", "v1", "2026-11-2")]
    assert 5 == one.record(P, found, [True] * 5)

    assert 4 == len(other.claim(P, DAY, "run").events)
    assert 1 == len(other.claim(P, "2026-11-2", "run").events)
    assert 1 == one.record(P, [event("a", "v2")], [True])
    assert 0 == one.record(P, [event("a#v1")], [True])


def test_a_run_takes_over_what_a_dead_run_claimed(ledgers):
    """Claims of a run that ended without acknowledging go to the next, with one more attempt."""
    one, other = ledgers
    one.record(P, [event(), event("b.csv")], [True, True])
    dead = one.claim(P, DAY, "dead")
    one.record(P, [event("c.csv")], [True])
    heir = other.claim(P, DAY, "heir")

    assert {"a.csv": 2, "b.csv": 2, "c.csv": 1} == {
        e.key.removeprefix(f"{P}/"): e.attempt for e in heir
    }
    assert {"heir"} == {e.run for e in one.events(P)}
    assert 0 == one.settle(dead, lambda e: ("done", None))
    assert {"claimed": 3} == {k: v for k, v in one.counts(P).items() if v}
    assert 3 == other.settle(heir, lambda e: ("done", "read"))
    assert {("done", "read")} == {(e.state, e.reason) for e in one.events(P)}


def test_an_event_put_again_while_claimed_stays_open(ledgers):
    """A run cannot acknowledge a version that was put anew while it worked."""
    one, other = ledgers
    one.record(P, [event(version="A"), event(version="B")], [True, True])
    claim = one.claim(P, DAY, "run")
    other.record(P, [event(version="A")], [True])

    assert 1 == one.settle(claim, lambda e: ("done", None))
    assert {("a.csv", "A"): "pending", ("a.csv", "B"): "done"} == states(other)


def test_events_are_moved_only_as_they_were_read(ledgers):
    """Parking what has changed since it was read leaves it alone."""
    one, other = ledgers
    one.record(P, [event(), event("b.csv")], [True, True])
    read = list(one.open_events(P))
    other.claim(P, DAY, "run")
    assert 0 == one.move(read, "parked", "too many")

    assert 2 == one.move(list(one.open_events(P)), "parked", "too many")
    assert [("parked", "too many")] * 2 == [(e.state, e.reason) for e in other.events(P)]
    assert 2 == other.move(list(other.events(P, state="parked")), "pending", None)
    assert Counter({DAY: 2}) == Counter(e.partition for e in one.open_events(P))


def test_partitions_and_pipelines_stay_apart(ledgers):
    """A claim takes one partition of one pipeline and nothing else."""
    one, other = ledgers
    other_pipeline = event().model_copy(update={"pipeline": "other"})
    one.record(P, [event(), event("b.csv", partition="2026-11-23")], [True, True])
    one.record("other", [other_pipeline], [True])

    assert 1 == len(other.claim(P, DAY, "run").events)
    found = Counter(event.partition for event in one.open_events(P))
    assert Counter({DAY: 1, "2026-11-23": 1}) == found
    assert [f"{P}/b.csv"] == [e.key for e in one.events(P, "2026-11-23", "pending")]
    assert (1, 1) == (one.counts(P)["claimed"], one.counts("other")["pending"])


def test_numbers_order_the_records_of_many_writers(storage, two, clock):
    """Four writers at once record many events: none is lost and no number is given twice."""
    batches, size = max(3, storage.page // 100), storage.page // 33

    def write(number):
        ledger = Registry(two[number % 2], clock=clock).ledger
        for batch in range(batches):
            events = [event(f"{number}-{batch}-{i}") for i in range(size)]
            assert size == ledger.record(P, events, [True] * size)
        two[number % 2].close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    found = list(Registry(two[0], clock=clock).ledger.events(P))
    count = 4 * batches * size
    assert list(range(1, count + 1)) == sorted(e.seq for e in found)
    assert count == len({e.key for e in found})
