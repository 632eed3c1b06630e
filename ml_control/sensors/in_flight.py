"""Which runs are really under way: Dagster's word, checked against the leases."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from ml_control.platform import Platform

_OPEN = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
STARTUP_SECONDS = 60.0
LAUNCH_SECONDS = 300.0  # a run that has not reported its start, or its end after a cancel
_ASSETS_OF_JOB = {
    "ingest": ("raw", "processed"),
    "train": ("model", "endpoint", "ab_config"),
    "rollout": ("ab_config",),
}


@dataclass
class InFlight:
    """Runs of one pipeline that are under way."""

    runs: list[str] = field(default_factory=list)
    partitions: set[str] = field(default_factory=set)


def in_flight(
    instance: DagsterInstance,
    platform: Platform,
    pipeline: str,
    assets: set[str],
    partitions: dg.PartitionsDefinition[str] | None = None,
    job: str = "",
) -> InFlight:
    """Runs that touch any of these assets of the pipeline and are alive; of one job, if named.

    A run whose process was killed keeps its status in Dagster for ever; it holds no lease, so
    after an allowance it is reported as failed and no longer counted.
    """
    found = InFlight()
    keys = {dg.AssetKey([pipeline, name]) for name in assets}
    for record in instance.get_run_records(RunsFilter(statuses=_OPEN)):
        run = record.dagster_run
        if (job and run.job_name != job) or not keys & _touched(run):
            continue
        if _gone(platform, pipeline, run, record.update_timestamp.timestamp()):
            instance.report_run_failed(
                run, "Its process is gone: it holds no lease and reports nothing."
            )
            continue
        found.runs.append(run.run_id)
        if partition := run.tags.get(PARTITION_NAME_TAG):
            found.partitions.add(partition)
        first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
        last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
        if first and last and partitions is not None:
            between = dg.PartitionKeyRange(first, last)
            found.partitions.update(partitions.get_partition_keys_in_range(between))
    return found


def _gone(platform: Platform, pipeline: str, run: dg.DagsterRun, updated: float) -> bool:
    """Whether a run has said nothing for longer than it may, and holds no lease.

    A run holds a lease through every step; between two steps it holds none for a moment, so it
    counts as gone only when a second look finds none either.
    """
    if run.status == DagsterRunStatus.QUEUED:
        return False  # the queue will start it
    started = run.status == DagsterRunStatus.STARTED
    allowance = STARTUP_SECONDS + platform.settings.lease_seconds if started else LAUNCH_SECONDS
    if platform.registry.clock() - updated <= allowance:
        return False
    for wait in (0.0, 1.0):
        time.sleep(wait)
        if any(lease.holder == run.run_id for lease in platform.registry.leases.held(pipeline)):
            return False
    return True


def _touched(run: dg.DagsterRun) -> frozenset[dg.AssetKey]:
    """The assets a run materialises; Dagster names them only where they are not the whole job."""
    if run.asset_selection:
        return frozenset(run.asset_selection)
    name, _, kind = run.job_name.rpartition("__")
    return frozenset(dg.AssetKey([name, asset]) for asset in _ASSETS_OF_JOB.get(kind, ()))
