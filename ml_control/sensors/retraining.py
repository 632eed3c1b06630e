"""``<pipeline>__retraining``: trains when something asks for it and nothing makes it wait."""

import dagster as dg

from ml_control.core.pipeline import Pipeline
from ml_control.resources import PlatformResource
from ml_control.resources.naming import asset_key
from ml_control.sensors.in_flight import in_flight
from ml_control.services.models.measures import take_outcomes
from ml_control.services.models.retraining import keep, observe_and_decide, take_calls, tell
from ml_control.services.reading.timeline import note_asked


def retraining_sensor(pipeline: Pipeline, job_name: str) -> dg.SensorDefinition:
    """The sensor of one pipeline."""

    @dg.sensor(
        name=f"{pipeline.name}__retraining",
        job_name=job_name,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Trains when new rows, the schedule or drift ask for it and nothing is in "
        "flight. A tick without a run says why not now.",
    )
    def retraining(
        context: dg.SensorEvaluationContext, ml_control: PlatformResource
    ) -> dg.RunRequest | dg.SkipReason:
        platform = ml_control.open()
        take_outcomes(platform, pipeline)
        take_calls(platform, pipeline)
        before = platform.registry.models.training(pipeline.name)
        ingesting = in_flight(context.instance, platform, pipeline.name, {"raw", "processed"})
        training = in_flight(context.instance, platform, pipeline.name, {"model"})
        deploying = in_flight(context.instance, platform, pipeline.name, {"endpoint"})
        seen, decision = observe_and_decide(
            platform,
            pipeline,
            ingesting=len(ingesting.runs),
            training=bool(training.runs),
            deploying=bool(deploying.runs),
        )
        tell(platform, pipeline, seen, decision)
        key = keep(platform, before, seen, decision)
        if key is None or seen.published is None:
            said = "it changed meanwhile; the next tick" if decision.train else decision.because
            return dg.SkipReason(f"not now, because {said}")
        names = ("endpoint", "ab_config")
        note_asked(platform, pipeline, seen.published, decision)
        return dg.RunRequest(
            run_key=key,
            asset_selection=[asset_key(pipeline, name) for name in names]
            if decision.redeploy
            else None,
            tags={
                "ml_control/because": decision.because,
                "ml_control/dataset": seen.published[:24],
            },
        )

    return retraining
