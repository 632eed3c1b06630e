"""backup and restore: the registry to a file, and back."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json
from ml_control.errors import Conflict
from ml_control.settings import Settings

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=_FILE)
@click.pass_obj
def backup(app: App, file: Path) -> None:
    """Copy the registry, as it is at one moment, into a new file; everything may go on running."""
    from ml_control.local.backups import back_up

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
    for name, items in found.items():
        click.echo(f"{name}: {len(items)} differences" if items else f"{name}: agrees")
        for item in items:
            click.echo(f"  {item.object}: {item.reason}\n    next: {item.next}")
    for name in left:
        click.echo(f"{name}: not compared, it has no usable pipeline file")


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
