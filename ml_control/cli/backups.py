"""backup, restore and reconcile: the registry to a file and back, and what differs from it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json
from ml_control.errors import Conflict, InvalidSpec
from ml_control.settings import Settings

if TYPE_CHECKING:
    from ml_control.services.releases.reconcile import Difference

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=_FILE)
@click.pass_obj
def backup(app: App, file: Path) -> None:
    """Copy the registry, as it is at one moment, into a new file; everything may go on running."""
    from ml_control.local.backups import back_up

    _require_file_registry(app.settings, "backup")
    size = back_up(app.settings.home / "registry.db", file.absolute())
    click.echo(f"wrote {file} ({size:,} bytes), checked whole; keep it with a copy of lake/")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def restore(app: App, file: Path, as_json: bool) -> None:
    """Put a backup in the registry's place and say what differs from it. Refused while up.

    What serves without a passing verdict in the restored registry is stopped; its bytes are kept.
    """
    from ml_control.local.backups import check, restore
    from ml_control.services.releases.reconcile import after_restore

    _require_file_registry(app.settings, "restore")
    registry = app.settings.home / "registry.db"
    with _not_up(app.settings):
        kept = restore(registry, file.absolute())
        known = check(registry)
        found = {
            name: after_restore(app.platform, pipeline, str(file))
            for name, pipeline in app.folder.found.items()
        }
    left = sorted(set(known) - set(found))
    if as_json:
        print_json(
            {
                "restored": str(file),
                "kept": str(kept) if kept else None,
                "differences": {k: [d.to_json() for d in v] for k, v in found.items()},
                "not_compared": left,
            }
        )
        return
    click.echo(f"restored {file}" + (f"; what it replaced is kept as {kept}" if kept else ""))
    _print_differences(found)
    for name in left:
        click.echo(f"{name}: not compared, it has no usable pipeline file")


@click.command()
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def reconcile(app: App, source: str, as_json: bool) -> None:
    """Say what differs from a registry that was put back by other means; SOURCE tells which.

    What serves without a passing verdict in it is stopped; its bytes are kept.
    """
    from ml_control.services.releases.reconcile import after_restore, require_whole

    with _not_up(app.settings):
        repaired = 0
        if app.settings.platform == "aws":
            from ml_control.aws.registry import DynamoTables

            tables = app.platform.registry.tables
            if isinstance(tables, DynamoTables):
                tables.require_tables()
                repaired = tables.repair()
        pipelines = app.folder.found
        for pipeline in pipelines.values():
            require_whole(app.platform, pipeline)
        found = {
            name: after_restore(app.platform, pipeline, source, actor="ml-control reconcile")
            for name, pipeline in pipelines.items()
        }
    if as_json:
        print_json(
            {
                "source": source,
                "repaired": repaired,
                "differences": {k: [d.to_json() for d in v] for k, v in found.items()},
            }
        )
        return
    click.echo(f"reconciled with {source}; {repaired} entries of the index were made anew")
    _print_differences(found)


def _print_differences(found: dict[str, list[Difference]]) -> None:
    for name, items in found.items():
        click.echo(f"{name}: {len(items)} differences" if items else f"{name}: agrees")
        for item in items:
            click.echo(f"  {item.object}: {item.reason}\n    next: {item.next}")


def _require_file_registry(settings: Settings, command: str) -> None:
    """Raise ``InvalidSpec`` on a platform whose registry is no file."""
    if settings.platform == "local":
        return
    raise InvalidSpec(
        f"ml-control {command}",
        "copies the registry's file, and on platform aws it is DynamoDB tables, whose "
        "point-in-time recovery keeps every second of the last 35 days",
        "restore the four tables to one time with 'aws dynamodb restore-table-to-point-in-time', "
        "name them under [aws.tables], then 'ml-control reconcile TIME' (docs/aws.md, Restoring "
        "the registry)",
    )


@contextmanager
def _not_up(settings: Settings) -> Iterator[None]:
    """Keep ``up`` from starting meanwhile. Raises ``Conflict`` when this home is up."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                str(settings.home), "is up", "end it with 'ml-control down', then restore again"
            ) from error
        yield
