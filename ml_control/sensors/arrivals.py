"""``<pipeline>__arrivals``: records what landed and asks for the partitions that need a run."""

import time

import dagster as dg

from ml_control.core.pipeline import Pipeline
from ml_control.resources import PlatformResource
from ml_control.resources.naming import partitions_of
from ml_control.sensors.in_flight import in_flight
from ml_control.services.intake import BATCH, take_in, wanted

_TICK_SECONDS = 20.0  # Dagster ends a tick at 60 s


def arrivals_sensor(pipeline: Pipeline, job_name: str) -> dg.SensorDefinition:
    """The sensor of one pipeline. It keeps no cursor: everything it needs is in the ledger."""
    partitions = partitions_of(pipeline)

    @dg.sensor(
        name=f"{pipeline.name}__arrivals",
        job_name=job_name,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Takes in what lands in landing/{pipeline.name}/ and ingests the partitions "
        "touched.",
    )
    def arrivals(
        context: dg.SensorEvaluationContext, ml_control: PlatformResource
    ) -> dg.SensorResult | dg.SkipReason:
        platform = ml_control.open()
        recorded = refused = 0
        until = time.monotonic() + _TICK_SECONDS
        while time.monotonic() < until:
            taken = take_in(platform, pipeline)
            recorded += taken.recorded
            refused += taken.refused
            if taken.seen < BATCH:
                break
        running = in_flight(
            context.instance, platform, pipeline.name, {"raw", "processed"}, partitions
        )
        room = platform.settings.max_runs - len(running.runs)
        requests = [
            dg.RunRequest(
                run_key=item.run_key,
                partition_key=item.partition,
                tags={"ml_control/because": item.because, "ml_control/attempt": str(item.attempt)},
            )
            for item in wanted(platform, pipeline, in_flight=running.partitions, limit=room)
        ]
        said = f"{recorded} new objects recorded, {refused} refused"
        if not requests:
            return dg.SkipReason(f"{said}; {len(running.runs)} runs in flight, none needed")
        context.log.info(f"{said}; asking for {len(requests)} runs")
        return dg.SensorResult(run_requests=requests)

    return arrivals
