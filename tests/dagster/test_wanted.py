"""Which partitions get a run: known ones, a few at a time, and parked ones only when asked."""

from __future__ import annotations

from datetime import date

import pytest

from ml_control.core.pipeline import Pipeline
from ml_control.services.arrivals.requests import park, plan, replay

DAY, LAST = "2024-03-04", "2024-03-06"


@pytest.fixture(autouse=True)
def at_once(home):
    """Nothing waits for a burst to end."""
    home.edit("  format: csv", "  format: csv\n    quiet: 0 s")


def test_a_partition_that_the_pipeline_file_dropped_is_parked_alone(home):
    """After start moved on, its objects are parked with the reason; the others get their runs."""
    home.land(DAY)
    home.land(LAST)
    home.take_in()
    source = home.pipeline().spec.source
    moved = source.partition.model_copy(update={"start": date.fromisoformat(LAST)})
    spec = home.pipeline().spec.model_copy(
        update={"source": source.model_copy(update={"partition": moved})}
    )

    found = plan(home.platform, Pipeline(spec), in_flight=set(), limit=10).wanted

    assert [LAST] == [item.partition for item in found]
    states = {
        e.partition: (e.state, e.reason) for e in home.platform.registry.ledger.events("tumours")
    }
    assert ("parked", "the pipeline file has no such partition any more") == states[DAY]
    assert "pending" == states[LAST][0]


def test_no_more_runs_than_allowed_at_once(home):
    """Many partitions get their runs a few at a time; none is charged an attempt while waiting."""
    days = [DAY, LAST]
    for day in days:
        home.land(day)
    home.take_in()

    first = plan(home.platform, home.pipeline(), in_flight=set(), limit=1).wanted
    full = plan(home.platform, home.pipeline(), in_flight={DAY}, limit=0).wanted

    assert ([DAY], []) == ([item.partition for item in first], full)
    assert home.platform.registry.partitions.get("tumours", LAST).request is None


def test_replay_takes_parked_objects_again(home):
    """Parked objects become pending, and their partition starts with its first attempt."""
    home.land(DAY)
    home.take_in()
    park(home.platform, home.pipeline(), DAY, "a test")

    touched = replay(home.platform, home.pipeline())

    assert {DAY} == touched
    assert 1 == home.platform.registry.ledger.counts("tumours")["pending"]
    assert 1 == plan(home.platform, home.pipeline(), in_flight=set(), limit=1).wanted[0].attempt


def test_replay_of_one_partition_leaves_the_others(home):
    """Only the partition that was named is taken again, and only it is told."""
    for day in (DAY, LAST):
        home.land(day)
    home.take_in()
    for day in (DAY, LAST):
        park(home.platform, home.pipeline(), day, "a test")

    touched = replay(home.platform, home.pipeline(), LAST)

    states = {e.partition: e.state for e in home.platform.registry.ledger.events("tumours")}
    assert ({LAST}, {DAY: "parked", LAST: "pending"}) == (touched, states)


def test_a_request_that_never_began_uses_up_no_attempt(home, monkeypatch):
    """Lost ticks are made good with growing waits, never park, and after five people are told."""
    home.land(DAY)
    home.take_in()
    registry, began, asked = home.platform.registry, home.platform.registry.clock(), []
    for after in range(0, 3600, 5):
        monkeypatch.setattr(registry, "clock", lambda now=began + after: now)
        found = plan(home.platform, home.pipeline(), in_flight=set(), limit=10)
        asked += [(item.attempt, item.run_key) for item in found.wanted]

    assert 10 < len(asked) < 25
    assert {1} == {attempt for attempt, _ in asked}
    assert len(asked) == len({key for _, key in asked})
    assert {"pending": 1} == {k: v for k, v in registry.ledger.counts("tumours").items() if v}
    assert ["not-beginning"] == [alert.kind for alert in registry.alerts.open("tumours")]


def test_a_run_key_is_never_given_twice(home):
    """After replay attempts start anew, but not their keys: Dagster never runs a key again."""
    home.land(DAY)
    home.take_in()
    keys = []
    for _ in range(3):
        (item,) = plan(home.platform, home.pipeline(), in_flight=set(), limit=1).wanted
        keys.append(item.run_key)
        park(home.platform, home.pipeline(), DAY, "a test")
        assert ["parked"] == [a.kind for a in home.platform.registry.alerts.open("tumours")]
        replay(home.platform, home.pipeline())
        assert [] == home.platform.registry.alerts.open("tumours")

    assert 3 == len(set(keys))


def test_objects_from_before_the_start_are_taken_once_the_start_is_moved_back(home):
    """``replay`` takes what belonged to no partition and does under the changed file."""
    home.land("2023-12-31")
    home.take_in()
    assert set() == replay(home.platform, home.pipeline())
    home.edit('start: "2024-01-01"', 'start: "2023-12-01"')

    assert {"2023-12-31"} == replay(home.platform, home.pipeline())
    counts = home.platform.registry.ledger.counts("tumours")
    assert {"pending": 1, "superseded": 1} == {k: v for k, v in counts.items() if v}
    (item,) = plan(home.platform, home.pipeline(), in_flight=set(), limit=1).wanted
    assert "2023-12-31" == item.partition
