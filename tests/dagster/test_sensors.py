"""The arrivals sensor on a real instance: level-based, durable before acknowledging."""

from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime

import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import freeze_time

DAY, NEXT = "2024-03-04", "2024-03-05"


def counts(home):
    return {k: v for k, v in home.platform.registry.ledger.counts("tumours").items() if v}


def test_nothing_landed_nothing_asked(sensors):
    """An idle tick says so."""
    requests, reason = sensors.tick("arrivals")

    assert [] == requests
    assert "0 new objects recorded, 0 refused; 0 runs in flight, none needed" == reason


def test_one_run_is_asked_for_each_partition_touched(sensors):
    """Files of three days give three requests, with partition, key and reason."""
    sensors.home.land(*sensors.home.days)

    requests, _ = sensors.tick("arrivals")

    assert list(sensors.home.days) == [request.partition_key for request in requests]
    assert 3 == len({request.run_key for request in requests})
    assert {"new objects"} == {request.tags["ml_control/because"] for request in requests}
    assert {"pending": 3} == counts(sensors.home)


def test_an_arrival_is_in_the_ledger_before_it_is_acknowledged(sensors, monkeypatch):
    """A death between recording and acknowledging loses nothing and asks for nothing twice."""
    notifications = sensors.home.platform.notifications
    recorded = []

    def die(notices):
        recorded.append(counts(sensors.home))
        raise KeyboardInterrupt

    sensors.home.land(DAY, NEXT)
    with monkeypatch.context() as patched:
        patched.setattr(notifications, "acknowledge", die)
        with pytest.raises(KeyboardInterrupt):
            sensors.tick("arrivals")

    requests, _ = sensors.tick("arrivals")

    assert [{"pending": 2}] == recorded
    assert [DAY, NEXT] == [request.partition_key for request in requests]
    assert {"pending": 2} == counts(sensors.home)
    assert [] == list(sensors.home.settings.landing.rglob("*.csv"))


def test_a_file_that_has_not_settled_is_left_alone(fast, home, sensors_of):
    """A copy that may still be growing is not taken."""
    home.edit("  format: csv", "  format: csv\n    settle: 1 h\n    quiet: 0 s")
    (file,) = home.land(DAY)

    requests, _ = sensors_of(home).tick("arrivals")

    assert ([], {}, True) == (requests, counts(home), file.exists())


@pytest.mark.parametrize("status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTED])
def test_a_partition_in_flight_is_not_asked_for_again(sensors, status):
    """While a run of the partition is open, other partitions are asked for, it is not."""
    sensors.run("ingest", DAY, status)
    sensors.home.land(DAY, NEXT)

    requests, _ = sensors.tick("arrivals")

    assert [NEXT] == [request.partition_key for request in requests]


def test_a_partition_whose_lease_is_held_is_not_asked_for(sensors):
    """A run that Dagster does not know, such as the command line's, counts by its lease."""
    sensors.home.land(DAY)
    leases = sensors.home.platform.registry.leases

    with leases.hold("tumours", f"partition {DAY}", "by hand"):
        during, _ = sensors.tick("arrivals")
    after, _ = sensors.tick("arrivals")

    assert ([], [DAY]) == (during, [request.partition_key for request in after])


def test_a_failed_run_is_followed_by_a_new_attempt_and_then_parking(sensors):
    """Each attempt has a run key of its own; after the last one the events are parked."""
    sensors.home.land(DAY)
    keys = []
    for attempt in (1, 2):
        (request,), _ = sensors.tick("arrivals")
        keys.append(request.run_key)
        assert str(attempt) == request.tags["ml_control/attempt"]
        run = sensors.run("ingest", DAY)
        assert [] == sensors.tick("arrivals")[0]
        sensors.instance.report_run_failed(run)

    last, reason = sensors.tick("arrivals")

    assert 2 == len(set(keys))
    assert ([], {"parked": 1}) == (last, counts(sensors.home))
    assert "none needed" in reason
    (event,) = sensors.home.platform.registry.ledger.events("tumours", DAY)
    assert "2 runs ended without taking it in" == event.reason


def test_the_second_attempt_waits(home, sensors_of, monkeypatch):
    """Attempts are ``retry_seconds`` apart, and twice as far each time."""
    monkeypatch.setenv("ML_CONTROL_RETRY_SECONDS", "100")
    home.edit("  format: csv", "  format: csv\n    settle: 0 s\n    quiet: 0 s")
    sensors = sensors_of(home)
    home.land(DAY)
    began = time.time()
    asked = []

    for after in (0, 99, 101, 300, 302, 701, 703):
        monkeypatch.setattr(
            home.platform.registry, "clock", itertools.repeat(began + after).__next__
        )
        requests, _ = sensors.tick("arrivals")
        for request in requests:
            sensors.begin(request.partition_key)
        asked += [after for _ in requests]

    assert [0, 101, 302, 703] == asked


def test_new_content_begins_a_new_count_of_attempts(sensors):
    """A corrected file is taken though the one before it was parked."""
    sensors.home.land(DAY)
    for _ in range(3):
        for request in sensors.tick("arrivals")[0]:
            sensors.begin(request.partition_key)
    assert {"parked": 1} == counts(sensors.home)
    sensors.home.land(DAY, rows=100)

    (request,), _ = sensors.tick("arrivals")

    assert ("1", DAY) == (request.tags["ml_control/attempt"], request.partition_key)


def test_a_run_whose_process_is_gone_does_not_block_its_partition(sensors, monkeypatch):
    """A run that Dagster holds for started, without a lease, is failed and tried again."""
    sensors.home.land(DAY)
    sensors.tick("arrivals")
    run = sensors.run("ingest", DAY)
    assert [] == sensors.tick("arrivals")[0]
    later = time.time() + 1000
    monkeypatch.setattr(sensors.home.platform.registry, "clock", lambda: later)

    (request,), _ = sensors.tick("arrivals")

    assert DagsterRunStatus.FAILURE == sensors.instance.get_run_by_id(run.run_id).status
    assert "2" == request.tags["ml_control/attempt"]


def test_raw_content_without_processed_is_asked_for(sensors):
    """A run that died between its two assets is made good, although no event is open."""
    from ml_control.services.data.dataset import admit

    sensors.home.land(DAY)
    sensors.home.take_in()
    admit(sensors.home.platform, sensors.home.pipeline(), DAY, "died after raw")

    (request,), _ = sensors.tick("arrivals")

    assert {"done": 1} == counts(sensors.home)
    assert "raw content not yet processed" == request.tags["ml_control/because"]


def test_an_object_of_a_day_to_come_waits(sensors, monkeypatch):
    """It is recorded and pending, and asked for once its day has begun."""
    sensors.home.land("2124-03-04")

    before, _ = sensors.tick("arrivals")
    at_last = datetime(2124, 3, 4, 0, 1, tzinfo=UTC)
    monkeypatch.setattr(sensors.home.platform.registry, "clock", at_last.timestamp)
    with freeze_time(at_last):  # Dagster's own clock
        after, _ = sensors.tick("arrivals")

    assert ([], ["2124-03-04"]) == (before, [request.partition_key for request in after])


@pytest.mark.parametrize(
    ("folder", "words"),
    [("dt=2023-12-31", "before the first partition 2024-01-01"), ("dt=tomorrow", "is no date")],
)
def test_an_object_that_belongs_nowhere_is_quarantined(sensors, folder, words):
    """Before ``start``, or with a date that is none: set aside with the reason on record."""
    file = sensors.home.settings.landing / "tumours" / folder / "x.csv"
    file.parent.mkdir(parents=True)
    file.write_text("a,b\n1,2\n")

    requests, reason = sensors.tick("arrivals")

    assert ([], {"quarantined": 1}) == (requests, counts(sensors.home))
    assert "1 new objects recorded, 1 refused" in reason
    (event,) = sensors.home.platform.registry.ledger.events("tumours")
    assert words in event.reason
    lake = sensors.home.platform.lake
    (record,) = lake.list("logs/tumours/quarantine")
    assert (event.reason, event.key) == tuple(
        json.loads(lake.get(record))[name] for name in ("reason", "object")
    )
