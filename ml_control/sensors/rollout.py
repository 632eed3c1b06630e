"""``<pipeline>__rollout``: reads new evidence and asks for a run when something is due."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from ml_control.core.pipeline import Pipeline
from ml_control.errors import MlControlError
from ml_control.resources import PlatformResource
from ml_control.sensors.in_flight import in_flight
from ml_control.services.releases.reconcile import STAGE
from ml_control.services.releases.rollout import due

_GATE_SECONDS = 300  # between two requests to gate the same model again


def rollout_sensor(
    pipeline: Pipeline,
    rollout_job: UnresolvedAssetJobDefinition,
    train_job: UnresolvedAssetJobDefinition,
) -> dg.SensorDefinition:
    """The sensor of one pipeline. It keeps no cursor: what it read is in the registry."""

    @dg.sensor(
        name=f"{pipeline.name}__rollout",
        jobs=[rollout_job, train_job],
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Moves a rollout on when its evidence, its time or a new model asks for it.",
    )
    def rollout(
        context: dg.SensorEvaluationContext, ml_control: PlatformResource
    ) -> dg.RunRequest | dg.SkipReason:
        platform = ml_control.open()
        try:
            found = due(platform, pipeline)
        except MlControlError as error:
            return dg.SkipReason(f"not now, because {error}")
        if found.action is None:
            return dg.SkipReason(f"not now, because {found.because}")
        # A train run deploys its model itself. While a challenger is judged nothing waits for
        # it: a training may take hours, and a rollback must not.
        job = rollout_job.name if found.judging else ""
        running = in_flight(context.instance, platform, pipeline.name, {"ab_config"}, job=job)
        if running.runs:
            return dg.SkipReason(f"not now, because a run is in flight: {running.runs[0]}")
        if (holder := platform.registry.leases.holder(pipeline.name, STAGE)) is not None:
            return dg.SkipReason(f"not now, because {holder.holder} is deploying")
        tags = {"ml_control/because": found.because[:250], "ml_control/step": found.action.kind}
        if found.action.kind == "gate":
            # The train job adopts the finished training, asks the gates anew, and deploys.
            key = f"{found.step}:{int(found.at // _GATE_SECONDS)}"
            return dg.RunRequest(run_key=key, job_name=train_job.name, tags=tags)
        # A run that was killed counts as no try, and a key is never run twice: hence the minute.
        key = f"{found.step}:{found.tries}:{int(found.at // 60)}"
        return dg.RunRequest(run_key=key, job_name=rollout_job.name, tags=tags)

    return rollout
