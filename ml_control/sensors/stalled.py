"""Which of our sensors have not ticked for a while, by what Dagster's instance keeps of them."""

from __future__ import annotations

from dagster import DagsterInstance
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus, SensorInstigatorData

AFTER_SECONDS = 180.0  # a tick may take 60 s, and sensors of one daemon wait for each other
_EXPECTED = ("arrivals", "retraining", "rollout")


def last_ticks(instance: DagsterInstance, pipeline: str) -> dict[str, float | None]:
    """When each sensor of a pipeline ticked last (UTC seconds; 0: never); None for one that a
    person stopped in the UI: it is meant to be still.
    """
    begins = f"{pipeline}__"
    ticks: dict[str, float] = dict.fromkeys((f"{begins}{name}" for name in _EXPECTED), 0.0)
    still: set[str] = set()
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        name, data = state.instigator_name, state.instigator_data
        if not name.startswith(begins):
            continue
        if state.status == InstigatorStatus.STOPPED:
            still.add(name)
        # The same name twice is of two code locations, of which one may be gone: the newest counts.
        ticks.setdefault(name, 0.0)
        if isinstance(data, SensorInstigatorData):
            told = (data.last_tick_timestamp or 0.0, data.last_tick_start_timestamp or 0.0)
            ticks[name] = max(ticks[name], *told)
    return {name: None if name in still else last for name, last in ticks.items()}


def stalled(ticks: dict[str, float | None], now: float, since: float) -> dict[str, float | None]:
    """For each sensor of :func:`last_ticks` the seconds without a tick if it is stalled, else None.

    ``since`` is when the daemon was started: before that no sensor could tick, and one that never
    did counts from there.
    """
    found: dict[str, float | None] = {}
    for name, last in ticks.items():
        silent = 0.0 if last is None else now - max(last, since)
        found[name] = silent if silent >= AFTER_SECONDS else None
    return found
