"""The retraining sensor on a real instance: one training at a time, asked for durably."""

from __future__ import annotations

import itertools
import time

import pytest

from ml_control.core.training_state import TrainingState
from ml_control.services.models.retraining import BACKFILL_STAGE

DAY, NEXT, LAST = "2024-03-04", "2024-03-05", "2024-03-06"


@pytest.fixture
def retraining(fast, audited, sensors_of):
    """Sensors of a home with two published days."""
    return sensors_of(audited)


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


def test_data_that_was_trained_on_is_not_trained_on_again(fast, trained, sensors_of):
    """After a verdict, the same data asks for nothing; new data does."""
    sensors = sensors_of(trained)
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
    fast, trained, sensors_of, monkeypatch
):
    """A run that died between verdict and traffic is asked for again, a few times and no more."""
    sensors = sensors_of(trained)
    registry = trained.platform.registry
    began = registry.models.training("tumours").at
    monkeypatch.setattr(registry, "clock", lambda: began + 1)
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
    assert ["endpoint", "ab_config"] == [key.path[-1] for key in request.asset_selection]
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


def test_retraining_can_be_turned_off(fast, audited, sensors_of):
    """``retrain.automatic: false`` leaves training to people, and says so."""
    audited.edit("  gates:", "  retrain: {automatic: false}\n  gates:")

    found = sensors_of(audited).tick("retraining")

    assert ([], "not now, because retrain.automatic is off") == found
