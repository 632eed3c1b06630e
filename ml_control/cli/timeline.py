"""history: what happened, and what was live at a time."""

from __future__ import annotations

from typing import Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table, when
from ml_control.cli.views import as_json_option

_SHORT = 12  # characters of a digest


def ui_of(app: App) -> str:
    """Address of the Dagster UI when ``up`` runs, else nothing."""
    from ml_control.cli.supervisor import running_state

    return str((running_state(app.settings) or {}).get("ui", ""))


@click.command()
@click.argument("pipeline")
@click.option("--at", help="What was live then: YYYY-MM-DD[THH:MM[:SS]] (UTC) or '2 h ago'.")
@click.option("--verify", "check", is_flag=True, help="Check the chain of hashes.")
@click.option("--limit", default=50, show_default=True, help="The newest so many (0: all).")
@click.option("--before", type=int, help="Only what came before this number.")
@as_json_option
@click.pass_obj
def history(
    app: App,
    pipeline: str,
    at: str | None,
    check: bool,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """Everything that happened, with its reason and run; what was live at a time."""
    from ml_control.core.moments import moment_of
    from ml_control.services.reading import timeline

    found = app.pipeline(pipeline)
    ui = ui_of(app)
    if at is not None:
        if check:
            app.platform.registry.history.verify(pipeline)
        moment = moment_of(at, app.platform.registry.clock(), "--at")
        seen = timeline.live_at(app.platform, found, moment, ui=ui)
        if as_json:
            print_json(seen)
        else:
            _print_moment(seen)
        return
    told = timeline.history(
        app.platform, found, verify=check, limit=max(limit, 0), before=before, ui=ui
    )
    if as_json:
        print_json(told)
        return
    print_table(
        f"{pipeline}: history" + (f", {told['verified']} hashes verified" if check else ""),
        ["#", "when (UTC)", "what", "model", "because", "by"],
        [_row(item) for item in told["decisions"]],
    )
    if told["next"] is not None:
        click.echo(f"earlier: ml-control history {pipeline} --before {told['next']}")
    if ui:
        click.echo(f"runs: {ui}/runs/<run>")


def _row(item: dict[str, Any]) -> list[str]:
    because = item["because"]
    if item["changed"]:
        because += f"\n→ {item['changed']}"
    by = f"run {item['run'][:8]}" if item["run"] else item["actor"]
    return [
        str(item["seq"]),
        when(item["at"]),
        item["action"],
        item["subject"][:_SHORT],
        because,
        by[:24],
    ]


def _print_moment(seen: dict[str, Any]) -> None:
    at, live = when(seen["at"]), seen["live"]
    if live is None:
        click.echo(f"nothing was live at {at}")
    else:
        click.echo(f"at {at} model {live['subject']} was live on variant {live['variant']}")
        if live["by"]:
            click.echo(f"  since {when(live['since'])}, because {live['because']}")
            click.echo(f"  by {by(live['by'])}")
        if verdict := live["verdict"]:
            metrics = ", ".join(f"{name} {v:.4f}" for name, v in verdict["metrics"].items())
            word = "passed" if verdict["passed"] else "refused"
            click.echo(f"  verdict: {word} {verdict['gates']} gates; {metrics}")
        if data := live["dataset"]:
            parts = data["partitions"]
            between = parts[0] if len(parts) == 1 else f"{parts[0]} to {parts[-1]}"
            click.echo(f"  trained on {data['rows']} rows of {between} ({data['digest'][:_SHORT]})")
    if seen["weights"]:
        shares = ", ".join(f"{name} {w:.0%}" for name, w in sorted(seen["weights"].items()))
        click.echo(f"  traffic: {shares}")
    if trial := seen["experiment"]:
        click.echo(
            f"  in progress: {trial['strategy']}, {trial['phase']}: model "
            f"{(trial['model_version'] or '?')[:_SHORT]} on {trial['challenger']} with "
            f"{trial['share']:.0%}, since {when(trial['started_at'])} ({trial['state']})"
        )
    for stop in seen["stopped"]:
        click.echo(f"  stopped {when(stop['at'])}: {stop['because']}")
    if seen["halted_because"]:
        click.echo(f"  halted: {seen['halted_because']}")
    if seen["paused"]:
        click.echo("  paused by a person")
    if not seen["whole"]:
        click.echo("  (written by an earlier version: it kept champion, variants and traffic only)")


def by(decision: dict[str, Any]) -> str:
    """Who decided, with the run's page when the UI is up."""
    if decision.get("url"):
        return str(decision["url"])
    return f"run {decision['run']}" if decision.get("run") else str(decision.get("actor", ""))
