"""Which sensors stand still, by what Dagster keeps of them."""

from __future__ import annotations

import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
)

from ml_control.sensors.stalled import AFTER_SECONDS, last_ticks, stalled

P = "tumours"
NOW = 1_000_000.0
LONG = NOW - 10 * AFTER_SECONDS


@pytest.fixture
def ticked(home, instance):
    """Notes that a sensor ticked, as the daemon does."""

    def note(name, last, status=InstigatorStatus.DECLARED_IN_CODE, started=0.0):
        location = GrpcServerCodeLocationOrigin("localhost", port=1, location_name=status.value)
        origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "repo"), name)
        data = SensorInstigatorData(last_tick_timestamp=last, last_tick_start_timestamp=started)
        instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status, data))

    return note


def found(instance, since=LONG, now=NOW):
    return {
        name
        for name, silent in stalled(last_ticks(instance, P), now, since).items()
        if silent is not None
    }


def test_a_sensor_without_a_tick_for_long_is_stalled(ticked, instance):
    """Ended and begun ticks count; a sensor that never ticked counts from the daemon's start."""
    ticked(f"{P}__arrivals", NOW - 10)
    ticked(f"{P}__rollout", NOW - AFTER_SECONDS - 1)
    ticked("another__arrivals", LONG)

    assert {f"{P}__retraining", f"{P}__rollout"} == found(instance)
    ticked(f"{P}__retraining", None, started=NOW - 5)
    assert {f"{P}__rollout"} == found(instance)
    assert AFTER_SECONDS + 1 == stalled(last_ticks(instance, P), NOW, LONG)[f"{P}__rollout"]


def test_before_the_daemon_had_time_nothing_is_stalled(ticked, instance):
    """Old ticks of an earlier start say nothing."""
    ticked(f"{P}__arrivals", LONG)

    assert set() == found(instance, since=NOW - AFTER_SECONDS + 1)


def test_a_sensor_that_a_person_stopped_is_meant_to_be_still(ticked, instance):
    """No alert for what was switched off in the UI."""
    ticked(f"{P}__arrivals", LONG, InstigatorStatus.STOPPED)
    ticked(f"{P}__retraining", NOW)
    ticked(f"{P}__rollout", NOW)

    assert set() == found(instance)
