"""Which partitions get a run: known ones, a few at a time, and parked ones only when asked."""

from __future__ import annotations

from datetime import date

import pytest

from ml_control.core.pipeline import Pipeline
from ml_control.services.requests import park, plan, replay

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
