"""token: who may call the gateway."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table, when
from ml_control.errors import Conflict, InvalidSpec

_DAY = 86400.0


@click.command()
@click.argument("action", type=click.Choice(["create", "list", "revoke"]))
@click.argument("name", required=False)
@click.option("--role", type=click.Choice(["caller", "reader", "manager"]), help="For create.")
@click.option("--expires", help="For create: how long it is valid ('30 d'); else for ever.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="For create: write it to this new file, for you alone, instead of showing it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def token(
    app: App,
    action: str,
    name: str | None,
    role: str | None,
    expires: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Make, list or take back the gateway's tokens; a token's text is shown once."""
    if action == "list":
        _list(app, as_json=as_json)
        return
    if name is None:
        raise click.UsageError(f"'token {action}' needs a NAME")
    if action == "create":
        if role is None:
            raise click.UsageError("'token create' needs --role")
        _create(app, name, role, expires, output, as_json=as_json)
        return
    revoked = app.platform.registry.tokens.revoke(name)
    if as_json:
        print_json({"name": name, "revoked_at": revoked.revoked_at})
    else:
        click.echo(f"revoked: {name}; the gateway refuses it within two seconds")


def _create(
    app: App, name: str, role: str, expires: str | None, output: Path | None, *, as_json: bool
) -> None:
    tokens = app.platform.registry.tokens
    seconds = _seconds(expires)
    if output is None:
        made, text = tokens.create(name, role, seconds)
    else:
        try:
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise Conflict(
                str(output), f"cannot be made: {error.strerror}", "name a new file"
            ) from error
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                made, text = tokens.create(name, role, seconds)
                file.write(text + "\n")
        except BaseException:
            output.unlink()
            raise
    if as_json:
        shown = {"token": text} if output is None else {"file": str(output)}
        told = {"name": name, "role": made.role, "expires_at": made.expires_at or None}
        print_json({**told, **shown})
        return
    until = f"until {when(made.expires_at)} UTC" if made.expires_at else "until it is revoked"
    click.echo(f"{made.role} {name}, {until}", err=True)
    click.echo(text if output is None else f"wrote {output}")


def _list(app: App, *, as_json: bool) -> None:
    now, found = app.platform.registry.clock(), app.platform.registry.tokens.all()
    if as_json:
        told = [
            {
                "name": one.name,
                "role": one.role,
                "state": one.state(now),
                "created_at": one.created_at,
                "expires_at": one.expires_at or None,
            }
            for one in found
        ]
        print_json({"tokens": told})
        return
    rows = [
        [one.name, one.role, one.state(now), when(one.created_at),
         when(one.expires_at) if one.expires_at else "never"]
        for one in found
    ]  # fmt: skip
    print_table("tokens", ["name", "role", "state", "made", "expires"], rows)


def _seconds(expires: str | None) -> float | None:
    from ml_control.spec.base import parse_duration

    if expires is None:
        return None
    try:
        seconds = parse_duration(expires)
    except ValueError as error:
        raise InvalidSpec("--expires", str(error), "write it as in '30 d'") from error
    if not 1 <= seconds <= 3650 * _DAY:
        raise InvalidSpec("--expires", f"{expires} is not between 1 s and 3650 d", "choose another")
    return seconds
