"""init, check, schema, ingest: files in, before anything runs."""

from __future__ import annotations

from pathlib import Path

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table
from ml_control.errors import InvalidSpec


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    help="A CSV, Parquet or JSON-lines file or folder, or a folder of images in label folders.",
)
@click.option("--target", help="Column to predict (not for images).")
def init(folder: Path, source: Path, target: str | None) -> None:
    """Write a pipeline that runs as it is, from a sample of its data."""
    from ml_control.services.authoring.scaffold import scaffold

    for path in scaffold(folder, source, target):
        click.echo(f"wrote {path}")
    click.echo(f"next: ml-control --pipelines {folder.parent} check")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check(app: App, as_json: bool) -> None:
    """Validate all pipeline files, offline. Exit status 1 if one is broken.

    Warns of experiments that cannot come to a decision at the rate that outcomes were logged at.
    """
    from ml_control.services.authoring.pipelines import audit_columns
    from ml_control.services.data.expectations import validate_suite_deep
    from ml_control.services.data.suites import refuse_undecidable
    from ml_control.services.models.sample_size import too_few

    folder = app.folder
    for name, pipeline in list(folder.found.items()):
        if pipeline.suite is not None:
            try:
                refuse_undecidable(pipeline.suite)
                validate_suite_deep(pipeline.suite, audit_columns(pipeline.spec))
            except InvalidSpec as error:
                del folder.found[name]
                file = (pipeline.folder or Path()) / (pipeline.spec.quality.expectations or "")
                where = f"{file} {error.object}"
                folder.broken[name] = InvalidSpec(where, error.reason, error.next)
    if not folder.found and not folder.broken:
        raise InvalidSpec(
            str(app.settings.pipelines),
            "holds no pipeline",
            "make one with 'ml-control init', or name the folder with --pipelines",
        )
    told = {name: too_few(app.settings, pipeline) for name, pipeline in folder.found.items()}
    warnings = {name: why for name, why in sorted(told.items()) if why}
    if as_json:
        print_json(
            {
                "ok": sorted(folder.found),
                "warnings": warnings,
                "broken": {name: refusal.to_dict() for name, refusal in folder.broken.items()},
            }
        )
    else:
        for name, pipeline in sorted(folder.found.items()):
            spec = pipeline.spec
            click.echo(
                f"ok: {name}: {spec.source.format}, {spec.columns.task}, "
                f"container {spec.training.container}"
            )
        for name, why in warnings.items():
            click.echo(f"warning: {name} rollout: {why}", err=True)
        for refusal in folder.broken.values():
            click.echo(f"error: {refusal.kind}: {refusal.object}: {refusal.reason}", err=True)
            click.echo(f"next: {refusal.next}", err=True)
    if folder.broken:
        raise SystemExit(1)


@click.command()
def schema() -> None:
    """Print the JSON Schema of a pipeline file's attributes."""
    from ml_control.spec import PipelineSpec

    print_json(PipelineSpec.model_json_schema())


@click.command()
@click.argument("pipeline")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--partition", help="Partition key; without it, dt= in the path or the file's day.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ingest(
    app: App, pipeline: str, files: tuple[Path, ...], partition: str | None, as_json: bool
) -> None:
    """Put files into the lake whole and record them; a daemon or 'run' takes them from there."""
    from ml_control.services.arrivals.intake import ingest_files

    done = ingest_files(app.platform, app.pipeline(pipeline), list(files), partition)
    if as_json:
        print_json({"seen": done.seen, "recorded": done.recorded, "refused": done.refused})
        return
    known = done.seen - done.recorded
    print_table(
        f"{pipeline}: ingested",
        ["files", "new", "known already", "quarantined"],
        [[done.seen, done.recorded, known, done.refused]],
    )
