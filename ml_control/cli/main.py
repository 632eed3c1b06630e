"""The command group: options that every command shares, and how refusals are printed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from ml_control import __version__
from ml_control.cli.context import App
from ml_control.errors import MlControlError

# Command -> module; a module is imported when its command is asked for, so that --help is fast.
COMMANDS = {
    "demo": "demo",
    "up": "processes",
    "down": "processes",
    "init": "files",
    "check": "files",
    "schema": "files",
    "ingest": "files",
    "run": "runs",
    "backfill": "runs",
    "replay": "runs",
    "backup": "backups",
    "restore": "backups",
    "reconcile": "backups",
    "promote": "decisions",
    "rollback": "decisions",
    "traffic": "decisions",
    "pause": "decisions",
    "resume": "decisions",
    "approve": "decisions",
    "reject": "decisions",
    "predict": "serving",
    "verify": "serving",
    "stream": "streams",
    "token": "tokens",
    "status": "views",
    "events": "views",
    "models": "views",
    "simulate": "simulate",
    "compare": "models",
    "score": "models",
    "history": "timeline",
    "why": "why",
}
_AS_JSON = "ml_control.as_json"


class Commands(click.Group):
    """Commands by name; refusals become two lines on stderr, or JSON, and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command, in the order of the documentation."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ml_control.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether JSON was asked for: a refusal may come before the command has said so."""
        ctx.meta[_AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a typed refusal is printed, anything else is a bug and is shown."""
        try:
            return super().invoke(ctx)
        except MlControlError as error:
            refuse(error, as_json=ctx.meta[_AS_JSON])
            ctx.exit(1)


def refuse(error: MlControlError, *, as_json: bool) -> None:
    """Print a refusal: kind, object and reason, then the next step."""
    if as_json:
        from ml_control.cli.output import print_json

        print_json({"error": error.to_dict()})
        return
    click.echo(f"error: {error.kind}: {error.object}: {error.reason}", err=True)
    if error.next:
        click.echo(f"next: {error.next}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ml-control")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of all local state (default: ML_CONTROL_HOME, else ./.ml_control).",
)
@click.option(
    "--pipelines",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of pipeline folders (default: ML_CONTROL_PIPELINES, else ./pipelines).",
)
@click.pass_context
def cli(ctx: click.Context, home: Path | None, pipelines: Path | None) -> None:
    """Drop data in; only what was proven serves."""
    ctx.obj = App(home, pipelines)


def main() -> None:
    """Entry point of the ``ml-control`` program."""
    cli(prog_name="ml-control")
