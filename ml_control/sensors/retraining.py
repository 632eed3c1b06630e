"""``<pipeline>__retraining``: trains once for each published dataset."""

import dagster as dg

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import TrainingState
from ml_control.resources import PlatformResource
from ml_control.sensors.in_flight import in_flight
from ml_control.services.alerts import clear_alerts, raise_alert
from ml_control.services.retraining import observe_and_decide
from ml_control.services.timeline import note_asked


def retraining_sensor(pipeline: Pipeline, job_name: str) -> dg.SensorDefinition:
    """The sensor of one pipeline."""

    @dg.sensor(
        name=f"{pipeline.name}__retraining",
        job_name=job_name,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Trains when a partition was published and nothing is in flight.",
    )
    def retraining(
        context: dg.SensorEvaluationContext, ml_control: PlatformResource
    ) -> dg.RunRequest | dg.SkipReason:
        platform = ml_control.open()
        ingesting = in_flight(context.instance, platform, pipeline.name, {"raw", "processed"})
        training = in_flight(context.instance, platform, pipeline.name, {"model"})
        seen, decision = observe_and_decide(
            platform, pipeline, ingesting=len(ingesting.runs), training=bool(training.runs)
        )
        if decision.halted and seen.published is not None:
            raise_alert(
                platform,
                pipeline.name,
                "training-halted",
                f"dataset {seen.published[:12]}",
                f"training was {decision.because}",
                f"see its runs in Dagster, then 'ml-control run {pipeline.name}'",
            )
        elif decision.train or decision.ended:
            clear_alerts(platform, pipeline.name, "training-halted")
        if not decision.train or seen.published is None:
            return dg.SkipReason(f"not now, because {decision.because}")
        # Written before the run is asked for: if this tick is lost, the next one tries again.
        platform.registry.models.set_training(
            TrainingState(
                pipeline=pipeline.name,
                dataset=seen.published,
                attempt=decision.attempt,
                outcome="requested",
                reason=decision.because,
                at=seen.now,
            )
        )
        note_asked(platform, pipeline, seen.published, decision.because, attempt=decision.attempt)
        return dg.RunRequest(
            run_key=f"{seen.published[:24]}:{decision.attempt}:{seen.now:.0f}",
            tags={
                "ml_control/because": decision.because,
                "ml_control/dataset": seen.published[:24],
            },
        )

    return retraining
