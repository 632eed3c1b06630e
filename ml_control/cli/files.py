"""init, schema, ingest: files in, before anything runs."""

from __future__ import annotations

from pathlib import Path

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table


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
