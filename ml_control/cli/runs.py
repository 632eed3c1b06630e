"""run and backfill: the same jobs as the daemon's, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ml_control.cli.context import App
from ml_control.cli.progress import rounds_shown
from ml_control.core.pipeline import Pipeline
from ml_control.errors import InvalidSpec, MlControlError, NotProven, PlatformFailed

if TYPE_CHECKING:
    from dagster import DagsterInstance, JobDefinition


@click.command()
@click.argument("pipeline")
@click.option("--partition", "partitions", multiple=True, help="Only these partitions.")
@click.pass_obj
def run(app: App, pipeline: str, partitions: tuple[str, ...]) -> None:
    """One pass without daemons: take in what landed, audit, train, prove, deploy."""
    from ml_control.services.arrivals.intake import take_in
    from ml_control.services.arrivals.requests import partitions_with_work

    found = app.pipeline(pipeline)
    _known_partitions(found, partitions)
    platform = app.platform
    at_once = platform.notifications.at_once
    recorded, seen = 0, at_once
    while seen == at_once:
        taken = take_in(platform, found, settle=0.0)
        recorded, seen = recorded + taken.recorded, taken.seen
    chosen = sorted(set(partitions) or partitions_with_work(platform, found))
    click.echo(f"{pipeline}: {recorded} new objects; ingesting {len(chosen)} partitions")
    with _instance(app) as instance:
        _train_on(app, instance, found, _ingest(app, instance, found, chosen))


@click.command()
@click.argument("pipeline")
@click.option("--from", "first", required=True, help="First partition key.")
@click.option("--to", "last", help="Last partition key (default: the newest).")
@click.pass_obj
def backfill(app: App, pipeline: str, first: str, last: str | None) -> None:
    """Re-materialise the partitions between two keys, then retrain once.

    Exit status 1 when a partition was refused; the others are published and trained on.
    """
    from ml_control.services.arrivals.requests import partitions_with_work
    from ml_control.services.models.retraining import BACKFILL_STAGE

    found = app.pipeline(pipeline)
    _known_partitions(found, [first, *([last] if last else [])])
    registry = app.platform.registry
    known = {state.partition for state in registry.partitions.all(pipeline)}
    known |= partitions_with_work(app.platform, found)
    chosen = sorted(key for key in known if first <= key and (last is None or key <= last))
    if not chosen:
        raise InvalidSpec(
            f"{pipeline} partitions {first} to {last or 'the newest'}",
            "hold no data",
            f"see 'ml-control events {pipeline}' for those that do",
        )
    with _instance(app) as instance:
        holder = f"backfill {first}..{last or chosen[-1]}"
        # Held so that the retraining sensor waits for the one training at the end.
        with registry.leases.hold(pipeline, BACKFILL_STAGE, holder):
            _train_on(app, instance, found, _ingest(app, instance, found, chosen))


def _train_on(
    app: App, instance: DagsterInstance, pipeline: Pipeline, refused: list[MlControlError]
) -> None:
    """Train on what is published, and say what was refused: one of them as the command's error."""

    def tell(errors: list[MlControlError]) -> None:
        for error in errors:
            click.echo(f"left as before: {error.kind}: {error.object}: {error.reason}", err=True)

    tell(refused[:-1])
    try:
        train(app, instance, pipeline)
    except MlControlError:
        tell(refused[-1:])
        raise
    if refused:
        raise refused[-1]


def _ingest(
    app: App, instance: DagsterInstance, pipeline: Pipeline, partitions: Sequence[str]
) -> list[MlControlError]:
    """Run the ingest job for each partition in this warm process; gives the refusals."""
    from rich.console import Console
    from rich.progress import track

    job = app.definitions.resolve_job_def(f"{pipeline.name}__ingest")
    refused: list[MlControlError] = []
    console = Console(stderr=True)
    for key in track(partitions, description="ingest", console=console, disable=not partitions):
        try:
            execute(job, instance, key)
        except MlControlError as error:
            refused.append(error)  # the others do not wait for it
    return refused


def train(app: App, instance: DagsterInstance, pipeline: Pipeline) -> None:
    """Run the train job in this process. Raises the refusal of its first failed step."""
    job = app.definitions.resolve_job_def(f"{pipeline.name}__train")
    with rounds_shown():
        execute(job, instance)
    _say_where_it_stands(app, pipeline)


def _say_where_it_stands(app: App, pipeline: Pipeline) -> None:
    """What is live, and what became of the newest model where that is another one."""
    registry, name = app.platform.registry, pipeline.name
    rollout, candidate = registry.rollouts.get(name), registry.models.candidate(name)
    if rollout.champion is not None:
        model = registry.models.get(name, rollout.champion)
        metrics = ", ".join(f"{metric} {value:.4f}" for metric, value in model.metrics.items())
        click.echo(f"{name}: model {model.version[:12]} is live on {rollout.live} ({metrics})")
    if candidate is None or candidate.version == rollout.champion:
        return
    from ml_control.services.releases.rollout import look

    entry = rollout.variants.get(rollout.challenger or "")
    if entry is not None and entry.model_version == candidate.version:
        click.echo(
            f"{name}: model {candidate.version[:12]} is the challenger on {rollout.challenger}, "
            f"{rollout.phase}, with {rollout.share:g} of the traffic"
        )
        return
    _, decision = look(app.platform, pipeline)
    click.echo(f"{name}: model {candidate.version[:12]} waits, because {decision.because}")


def execute(job: JobDefinition, instance: DagsterInstance, partition: str | None = None) -> None:
    """Run a job in this process; it is recorded in the instance and shown in the UI.

    Raises the step's own refusal, or ``NotProven`` when a blocking check failed.
    """
    from dagster import DagsterError

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    try:
        job.execute_in_process(partition_key=partition, instance=instance, run_config=quiet)
    except DagsterError as error:
        if isinstance(error.__cause__, MlControlError):
            raise error.__cause__ from error
        if type(error).__name__ == "DagsterAssetCheckFailedError":
            raise NotProven(
                job.name, str(error), "see its checks and the report, then train on better data"
            ) from error
        raise PlatformFailed(job.name, str(error), "see the run in Dagster") from error


def _instance(app: App) -> DagsterInstance:
    import logging

    from dagster import DagsterInstance

    from ml_control.resources.instance import prepare_dagster_home

    prepare_dagster_home(app.settings)
    logging.getLogger("dagster").setLevel(logging.WARNING)
    return DagsterInstance.get()


def _known_partitions(pipeline: Pipeline, keys: Sequence[str]) -> None:
    from ml_control.resources.naming import partitions_of

    definition = partitions_of(pipeline)
    first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
    for key in keys:
        if not definition.has_partition_key(key):
            raise InvalidSpec(
                f"{pipeline.name} partition {key}",
                f"is none of its {pipeline.spec.source.partition.by} partitions "
                f"({first} to {last})",
                "name one of them",
            )


@click.command()
@click.argument("pipeline")
@click.option("--partition", help="Only this partition.")
@click.pass_obj
def replay(app: App, pipeline: str, partition: str | None) -> None:
    """Take parked objects again: they become pending, and their partitions get new attempts."""
    from ml_control.services.arrivals.requests import replay as take_again

    touched = sorted(take_again(app.platform, app.pipeline(pipeline), partition))
    said = ", ".join(touched) or "nothing was parked"
    click.echo(f"{pipeline}: {len(touched)} partitions are tried again: {said}")
