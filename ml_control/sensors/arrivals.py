"""``<pipeline>__arrivals``: records what landed and asks for the partitions that need a run."""

import time

import dagster as dg

from ml_control.core.pipeline import Pipeline
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.resources import PlatformResource
from ml_control.resources.naming import partitions_of
from ml_control.sensors.in_flight import in_flight
from ml_control.services.alerts import attend
from ml_control.services.arrivals.intake import Intake, take_in
from ml_control.services.arrivals.requests import Plan, plan
from ml_control.services.arrivals.sweep import Swept, sweep
from ml_control.services.reading.emitting import emit_metrics

_TICK_SECONDS = 20.0  # Dagster ends a tick at 60 s
_SHOWN = 3  # partitions whose reason to wait is told


def arrivals_sensor(pipeline: Pipeline, job_name: str) -> dg.SensorDefinition:
    """The sensor of one pipeline. It keeps no cursor: everything it needs is in the registry."""
    partitions = partitions_of(pipeline)

    @dg.sensor(
        name=f"{pipeline.name}__arrivals",
        job_name=job_name,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Takes in what arrives for {pipeline.name} and ingests the partitions "
        "touched.",
    )
    def arrivals(
        context: dg.SensorEvaluationContext, ml_control: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        platform = ml_control.open()
        taken, drained = _take(platform, pipeline)
        swept = sweep(platform, pipeline) if drained else Swept()
        running = in_flight(
            context.instance, platform, pipeline.name, {"raw", "processed"}, partitions
        )
        room = platform.settings.max_runs - len(running.runs)
        found = plan(platform, pipeline, in_flight=running.partitions, limit=max(room, 0))
        requests = [
            dg.RunRequest(
                run_key=item.run_key,
                partition_key=item.partition,
                tags={"ml_control/because": item.because, "ml_control/attempt": str(item.attempt)},
            )
            for item in found.wanted
        ]
        try:
            attend(platform, pipeline.name)
        except MlControlError as error:  # what was asked for is more urgent than who is told
            context.log.warning(f"alerts wait: {error}")
        try:
            emit_metrics(platform, pipeline)
        except MlControlError as error:
            context.log.warning(f"metrics wait: {error}")
        said = _said(taken, swept)
        if not requests:
            quiet = f"{said}; {len(running.runs)} runs in flight, none needed{_reasons(found)}"
            return dg.SkipReason(quiet)
        context.log.info(f"{said}; asking for {len(requests)} runs{_reasons(found)}")
        return dg.SensorResult(run_requests=requests)

    return arrivals


def _take(platform: Platform, pipeline: Pipeline) -> tuple[Intake, bool]:
    """Take in what landed, for as long as a tick may last; whether that was all."""
    total, until = Intake(0, 0, 0), time.monotonic() + _TICK_SECONDS
    while time.monotonic() < until:
        taken = take_in(platform, pipeline)
        total += taken
        if taken.seen < platform.notifications.at_once:
            return total, True
    return total, False


def _said(taken: Intake, swept: Swept) -> str:
    said = f"{taken.recorded} new objects recorded, {taken.refused} refused"
    if swept.looked:
        said += f"; swept {swept.looked} stored objects, {swept.found} of them unknown"
    return said


def _reasons(found: Plan) -> str:
    """Why partitions wait, the oldest first."""
    said = [f"{partition} {why}" for partition, why in list(found.waiting.items())[:_SHOWN]]
    if len(found.waiting) > _SHOWN:
        said.append(f"{len(found.waiting) - _SHOWN} more partitions wait")
    return "".join(f"; {each}" for each in said)
