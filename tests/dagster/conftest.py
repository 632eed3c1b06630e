"""Sensors of a home, evaluated one tick at a time."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from ml_control.resources import PlatformResource


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
def sensors_of(instance):
    """The sensors of a home."""
    return lambda home: Sensors(home, instance)


@pytest.fixture
def sensors(fast, home, sensors_of):
    """Sensors of a fresh home."""
    home.edit("  format: csv", "  format: csv\n    settle: 0 s\n    quiet: 0 s")
    return sensors_of(home)
