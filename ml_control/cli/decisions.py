"""promote, rollback, traffic, pause, resume, approve, reject: a person's decisions."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json

if TYPE_CHECKING:
    from ml_control.services.releases.commands import Done

Decorated = Callable[..., Any]


def _user() -> str:
    """The operating system's name of who asks."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def decision(function: Decorated) -> Decorated:
    """The argument and options that every decision has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--actor", default=_user, help="Who decides (default: the user of the OS)."),
        click.option("--because", required=True, metavar="TEXT", help="Why; it is recorded."),
    ):
        function = option(function)
    return click.argument("pipeline")(function)


version_option = click.option("--version", help="This model version, or an unambiguous beginning.")


@click.command()
@decision
@version_option
@click.pass_obj
def promote(
    app: App, pipeline: str, because: str, actor: str, version: str | None, as_json: bool
) -> None:
    """Give all traffic to the challenger, or to a proven model version."""
    from ml_control.services.releases import commands

    found = app.pipeline(pipeline)
    said = _teller(as_json)
    done = commands.promote(
        app.platform, found, actor=actor, because=because, version=version, say=said
    )
    _tell(pipeline, done, as_json=as_json)


@click.command()
@decision
@click.pass_obj
def rollback(app: App, pipeline: str, because: str, actor: str, as_json: bool) -> None:
    """Take the challenger out, or go back to the version before the champion."""
    from ml_control.services.releases import commands

    found = app.pipeline(pipeline)
    done = commands.rollback(
        app.platform, found, actor=actor, because=because, say=_teller(as_json)
    )
    _tell(pipeline, done, as_json=as_json)


@click.command()
@decision
@click.argument("share", type=float)
@click.pass_obj
def traffic(app: App, pipeline: str, share: float, because: str, actor: str, as_json: bool) -> None:
    """Set the challenger's share of entities, between 0 and 1."""
    from ml_control.services.releases import commands

    found = app.pipeline(pipeline)
    done = commands.traffic(app.platform, found, share, actor=actor, because=because)
    _tell(pipeline, done, as_json=as_json)


@click.command()
@decision
@click.pass_obj
def pause(app: App, pipeline: str, because: str, actor: str, as_json: bool) -> None:
    """Stop every automatic step; what serves goes on serving."""
    from ml_control.services.releases import commands

    found = app.pipeline(pipeline)
    done = commands.pause(app.platform, found, actor=actor, because=because)
    _tell(pipeline, done, as_json=as_json)


@click.command()
@decision
@click.pass_obj
def resume(app: App, pipeline: str, because: str, actor: str, as_json: bool) -> None:
    """Go on after a pause or a halt."""
    from ml_control.services.releases import commands

    found = app.pipeline(pipeline)
    done = commands.resume(app.platform, found, actor=actor, because=because)
    _tell(pipeline, done, as_json=as_json)


@click.command()
@decision
@version_option
@click.pass_obj
def approve(
    app: App, pipeline: str, because: str, actor: str, version: str | None, as_json: bool
) -> None:
    """Allow a proven model version to take traffic."""
    from ml_control.services.releases import commands

    found = app.pipeline(pipeline)
    answer = commands.approve(app.platform, found, version, actor=actor, because=because)
    _answer(pipeline, answer.to_json(), as_json=as_json)


@click.command()
@decision
@version_option
@click.pass_obj
def reject(
    app: App, pipeline: str, because: str, actor: str, version: str | None, as_json: bool
) -> None:
    """Never let a model version take traffic; it is final."""
    from ml_control.services.releases import commands

    found = app.pipeline(pipeline)
    answer = commands.reject(app.platform, found, version, actor=actor, because=because)
    _answer(pipeline, answer.to_json(), as_json=as_json)


def _teller(as_json: bool) -> Callable[[str], None]:
    return lambda text: click.echo(text, err=as_json)


def _tell(pipeline: str, done: Done, *, as_json: bool) -> None:
    rollout = done.rollout
    if as_json:
        print_json({"changed": done.changed, "said": done.said, "rollout": rollout.to_json()})
        return
    split = ", ".join(f"{name} {weight:g}" for name, weight in sorted(rollout.weights.items()))
    state = f"{rollout.state}{', paused' if rollout.paused else ''}"
    if not done.changed:
        click.echo(f"{pipeline}: nothing to do: {done.said}")
    click.echo(
        f"{pipeline}: champion {(rollout.champion or 'none')[:12]}, "
        f"traffic {split or 'none'}, {state}"
    )


def _answer(pipeline: str, answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    click.echo(
        f"{pipeline}: model {answer['model_version'][:12]} {answer['state']} by {answer['actor']}"
    )
