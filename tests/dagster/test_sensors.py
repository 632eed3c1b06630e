"""The sensors on a real instance: level-based, durable before acknowledging, never twice."""

from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import freeze_time

from ml_control.core.records import TrainingState
from ml_control.resources import PlatformResource
from ml_control.services.retraining import BACKFILL_STAGE

DAY, NEXT, LAST = "2024-03-04", "2024-03-05", "2024-03-06"


class Sensors:
    """Evaluates a pipeline's sensors as the daemon does, one tick at a time."""

    def __init__(self, home, instance):
        self.home = home
        self.instance = instance
        self.definitions = home.definitions()

    def tick(self, name):
        """(the run requests, the reason for asking for none)."""
        sensor = self.definitions.resolve_sensor_def(f"tumours__{name}")
        with dg.build_sensor_context(
            instance=self.instance,
            definitions=self.definitions,
            resources={"ml_control": PlatformResource(home=str(self.home.path))},
        ) as context:
            found = sensor.evaluate_tick(context)
        return found.run_requests or [], found.skip_message

    def begin(self, partition):
        """What a run does first: count as an attempt."""
        registry = self.home.platform.registry
        registry.partitions.begin("tumours", partition, registry.clock())

    def run(self, job, partition=None, status=DagsterRunStatus.STARTED):
        """A run that Dagster holds to be in this state; no process works on it any more."""
        if job == "ingest" and partition and status == DagsterRunStatus.STARTED:
            self.begin(partition)
        return self.instance.create_run_for_job(
            self.definitions.resolve_job_def(f"tumours__{job}"),
            status=status,
            tags={"dagster/partition": partition} if partition else {},
        )


@pytest.fixture
def fast(monkeypatch):
    """No waiting between attempts, two attempts, and files count as whole at once."""
    monkeypatch.setenv("ML_CONTROL_RETRY_SECONDS", "0")
    monkeypatch.setenv("ML_CONTROL_MAX_ATTEMPTS", "2")


@pytest.fixture
def sensors(fast, home, instance):
    """Sensors of a fresh home."""
    home.edit("  format: csv", "  format: csv\n    settle: 0 s\n    quiet: 0 s")
    return Sensors(home, instance)


@pytest.fixture
def retraining(fast, audited, instance):
    """Sensors of a home with two published days."""
    return Sensors(audited, instance)


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


def test_a_file_that_has_not_settled_is_left_alone(fast, home, instance):
    """A copy that may still be growing is not taken."""
    home.edit("  format: csv", "  format: csv\n    settle: 1 h\n    quiet: 0 s")
    (file,) = home.land(DAY)

    requests, _ = Sensors(home, instance).tick("arrivals")

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


def test_the_second_attempt_waits(home, instance, monkeypatch):
    """Attempts are ``retry_seconds`` apart, and twice as far each time."""
    monkeypatch.setenv("ML_CONTROL_RETRY_SECONDS", "100")
    home.edit("  format: csv", "  format: csv\n    settle: 0 s\n    quiet: 0 s")
    sensors = Sensors(home, instance)
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
    from ml_control.services.dataset import admit

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


def test_training_waits_for_data(sensors):
    """Without anything published there is nothing to train on."""
    assert ([], "not now, because nothing is published yet") == sensors.tick("retraining")


def test_training_is_asked_for_once_for_each_dataset(retraining):
    """The request is on record before it is made, and is not made again."""
    (request,), _ = retraining.tick("retraining")
    again, reason = retraining.tick("retraining")

    assert "new data was published" == request.tags["ml_control/because"]
    state = retraining.home.platform.registry.models.training("tumours")
    assert ("requested", 1) == (state.outcome, state.attempt)
    assert state.dataset.startswith(request.tags["ml_control/dataset"])
    assert ([], "not now, because attempt 1 did not end well; waiting") == (again, reason)


def test_training_waits_while_data_comes_in(retraining):
    """Pending objects, an open ingest run and a backfill each hold training back."""
    home = retraining.home
    run = retraining.run("ingest", DAY)
    ingesting = retraining.tick("retraining")
    retraining.instance.report_run_failed(run)
    with home.platform.registry.leases.hold("tumours", BACKFILL_STAGE, "backfill by hand"):
        backfilling = retraining.tick("retraining")
    home.land(LAST)
    home.take_in()
    waiting = retraining.tick("retraining")
    home.publish(LAST)
    ready = retraining.tick("retraining")

    coming = "not now, because data is coming in: {} runs in flight, {} partitions wait"
    assert ([], coming.format(1, 0)) == ingesting
    assert ([], "not now, because a backfill is in progress; it trains once at its end") == (
        backfilling
    )
    assert ([], coming.format(0, 1)) == waiting
    assert 1 == len(ready[0])


def test_one_training_at_a_time(retraining):
    """A training run in flight is waited for, whether Dagster or a lease tells of it."""
    run = retraining.run("train")
    by_run = retraining.tick("retraining")
    retraining.instance.report_run_failed(run)
    with retraining.home.platform.registry.leases.hold("tumours", "model", "by hand"):
        by_lease = retraining.tick("retraining")

    expected = ([], "not now, because a training run is in flight")
    assert (expected, expected) == (by_run, by_lease)


def test_data_that_was_trained_on_is_not_trained_on_again(fast, trained, instance):
    """After a verdict, the same data asks for nothing; new data does."""
    sensors = Sensors(trained, instance)
    promote_candidate(trained)
    before = sensors.tick("retraining")
    trained.land(LAST)
    trained.publish(LAST)
    after, _ = sensors.tick("retraining")

    assert ([], "not now, because this data was trained on: passed") == before
    assert 1 == len(after)


def promote_candidate(home):
    """Write the Rollout that a deployment of the candidate ends with."""
    registry = home.platform.registry
    version = registry.models.candidate("tumours").version
    before = registry.rollouts.get("tumours")
    with registry.leases.hold("tumours", "deploy", "by hand") as lease:
        registry.rollouts.write(
            before,
            before.model_copy(update={"champion": version}),
            registry.leases.fence(lease),
            action="promoted",
            because="a test",
            actor="by hand",
        )


def test_a_proven_model_that_was_not_deployed_is_taken_up_again(
    fast, trained, instance, monkeypatch
):
    """A run that died between verdict and traffic is asked for again, a few times and no more."""
    sensors = Sensors(trained, instance)
    registry = trained.platform.registry
    began = registry.models.training("tumours").at
    early = sensors.tick("retraining")
    monkeypatch.setattr(registry, "clock", lambda: began + 3600)
    (request,), _ = sensors.tick("retraining")
    registry.models.set_training(
        registry.models.training("tumours").model_copy(update={"attempt": 3, "outcome": "passed"})
    )
    monkeypatch.setattr(registry, "clock", lambda: began + 36000)
    late = sensors.tick("retraining")

    assert ([], "not now, because attempt 1 did not end well; waiting") == early
    assert "attempt 2: the proven model is not deployed yet" == request.tags["ml_control/because"]
    words = "halted after 3 failed attempts: the proven model could not be deployed"
    assert ([], f"not now, because {words}") == late


def test_a_training_that_keeps_failing_is_halted_with_its_reason(retraining, monkeypatch):
    """Failed attempts are repeated a few times, each later, and then a person is needed."""
    registry = retraining.home.platform.registry
    began, keys = time.time(), []
    for hour in (1, 2, 3):
        monkeypatch.setattr(registry, "clock", itertools.repeat(began + 3600 * hour).__next__)
        (request,), _ = retraining.tick("retraining")
        keys.append(request.run_key)
        state = registry.models.training("tumours")
        registry.models.set_training(
            TrainingState(**{**state.to_json(), "outcome": "failed", "reason": "the disk is full"})
        )
    monkeypatch.setattr(registry, "clock", lambda: began + 360_000)

    requests, reason = retraining.tick("retraining")

    assert 3 == len(set(keys))
    assert [] == requests
    assert "not now, because halted after 3 failed attempts: the disk is full" == reason
    (alert,) = registry.alerts.open("tumours")
    assert "training-halted" == alert.kind
    assert "training was halted after 3 failed attempts: the disk is full" == alert.reason
    retraining.tick("retraining")
    assert 1 == len(registry.alerts.open("tumours"))
    registry.models.set_training(
        TrainingState(**{**registry.models.training("tumours").to_json(), "outcome": "passed"})
    )
    retraining.tick("retraining")
    assert [] == registry.alerts.open("tumours")


def test_retraining_can_be_turned_off(fast, audited, instance):
    """``retrain.automatic: false`` leaves training to people, and says so."""
    audited.edit("  gates:", "  retrain: {automatic: false}\n  gates:")

    found = Sensors(audited, instance).tick("retraining")

    assert ([], "not now, because retrain.automatic is off") == found
