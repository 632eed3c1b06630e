"""status, events, models: what is."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table, when
from ml_control.core.records import EVENT_STATES

_SHOWN = 5  # partitions that wait

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("pipeline", required=False)
@as_json_option
@click.pass_obj
def status(app: App, pipeline: str | None, as_json: bool) -> None:
    """What is live, what comes next, and what waits."""
    from ml_control.services.alerts import unclaimed
    from ml_control.services.reading.views import status as view

    chosen = [app.pipeline(pipeline)] if pipeline else list(app.folder.found.values())
    found = [view(app.platform, item) for item in chosen]
    broken = {name: error.to_dict() for name, error in app.folder.broken.items()}
    strays = unclaimed(app.platform, {*app.folder.found, *app.folder.broken})
    if as_json:
        told = [error.to_dict() for error in strays]
        print_json({"pipelines": found, "broken": broken, "unclaimed": told})
        return
    print_table(
        "pipelines",
        ["pipeline", "live", "model", "candidate", "ledger", "training"],
        [
            _status_row(item, pipeline.spec.champion_metric)
            for item, pipeline in zip(found, chosen, strict=True)
        ],
    )
    for item in found:
        if item["live"]:
            click.echo(f"{item['name']}: {item['live']['url']}  report {item['report']}")
        for unknown in item["unknown"]:
            click.echo(f"unknown: {unknown['object']}: {unknown['reason']}", err=True)
            click.echo(f"next: {unknown['next']}", err=True)
    for item in found:
        _say_what_waits(item)
    for name, error in broken.items():
        click.echo(f"broken: {name}: {error['object']}: {error['reason']}", err=True)
    for stray in strays:
        click.echo(f"unclaimed: {stray.object}: {stray.reason}", err=True)
        click.echo(f"next: {stray.next}", err=True)


def _say_what_waits(item: dict[str, Any]) -> None:
    for work in item["waiting"][:_SHOWN]:
        click.echo(f"{item['name']} {work['partition']}: {work['because']}")
    if len(item["waiting"]) > _SHOWN:
        click.echo(f"{item['name']}: {len(item['waiting']) - _SHOWN} more partitions wait")
    for alarm in item["alarms"]:
        if alarm["state"] != "ok":
            reason = f": {alarm['reason']}" if alarm["reason"] else ""
            click.echo(f"{item['name']}: alarm {alarm['name']} is {alarm['state']}{reason}")
    alerts = item["alerts"]
    if alerts["open"]:
        newest, count = alerts["newest"], f"{alerts['open']} open alert"
        count += "s" * (alerts["open"] > 1)
        click.echo(
            f"{item['name']}: {count}, the newest of {when(newest['at'])}: "
            f"{newest['kind']}: {newest['object']}: {newest['reason']} (next: {newest['next']})"
        )


def _status_row(item: dict[str, Any], metric: str) -> list[str]:
    live, verdict = item["live"], item["verdict"]
    said = "-"
    if verdict:
        said = "passed" if verdict["passed"] else f"refused: {', '.join(verdict['failed'])}"
        if metric in verdict["metrics"]:
            said += f", {metric} {verdict['metrics'][metric]:.5g}"
    ledger = ", ".join(f"{count} {state}" for state, count in item["ledger"].items() if count)
    return [
        item["name"],
        f"{live['variant']} {live['state']}" if live else "nothing",
        live["model_version"][:12] if live else "-",
        said,
        ledger or "empty",
        f"{item['retrain']['decision']}: {item['retrain']['because']}",
    ]


@click.command()
@click.argument("pipeline")
@click.option("--partition", help="Only this partition.")
@click.option("--state", type=click.Choice(EVENT_STATES), help="Only events in this state.")
@click.option("--limit", default=100, show_default=True, help="At most so many (0: all).")
@as_json_option
@click.pass_obj
def events(
    app: App, pipeline: str, partition: str | None, state: Any, limit: int, as_json: bool
) -> None:
    """What became of each object."""
    app.pipeline(pipeline)
    ledger = app.platform.registry.ledger
    found = list(islice(ledger.events(pipeline, partition, state), limit or None))
    if as_json:
        print_json({"events": [event.to_json() for event in found]})
        return
    print_table(
        f"{pipeline}: {len(found)} events",
        ["partition", "object", "version", "state", "attempt", "reason"],
        [[e.partition, e.key, e.version[:12], e.state, e.attempt, e.reason or ""] for e in found],
    )


@click.command()
@click.argument("pipeline")
@click.option("--trials", "tried", is_flag=True, help="The trials of tuning instead.")
@as_json_option
@click.pass_obj
def models(app: App, pipeline: str, tried: bool, as_json: bool) -> None:
    """Every model version with its verdict, or every trial of tuning."""
    from ml_control.services.reading.views import models as view

    if tried:
        _trials(app, pipeline, as_json=as_json)
        return
    found = view(app.platform, app.pipeline(pipeline))
    if as_json:
        print_json({"models": found})
        return
    rows = []
    for item in found:
        verdict = item["verdict"]
        said = "none"
        if verdict:
            said = "passed" if verdict["passed"] else f"refused: {', '.join(verdict['failed'])}"
        metrics = verdict["metrics"] if verdict else {}
        rows.append(
            [
                ("* " if item["live"] else "  ") + item["version"][:12],
                when(item["created_at"]),
                item["rows"],
                len(item["partitions"]),
                said,
                " ".join(f"{name}={value:.4f}" for name, value in metrics.items()),
            ]
        )
    print_table(
        f"{pipeline}: models (* live)",
        ["version", "made", "rows", "partitions", "verdict", "test metrics"],
        rows,
    )


def _trials(app: App, pipeline: str, *, as_json: bool) -> None:
    from ml_control.services.reading.views import trials as view

    found = view(app.platform, app.pipeline(pipeline))
    if as_json:
        print_json({"trials": found})
        return
    if not found:
        click.echo(f"{pipeline}: no trials; training.tuning in its file asks for a search")
        return
    print_table(
        f"{pipeline}: trials (* best of its search)",
        ["search", "trial", "setting", "validation", "rounds", "state", "seconds"],
        [
            [
                item["study"].removeprefix("study-")[:8],
                ("* " if item["best"] else "  ") + str(item["number"]),
                "\n".join(f"{name}={value}" for name, value in item["params"].items()),
                "-" if item["value"] is None else _watched(item),
                item["rounds_kept"] or item["rounds"],
                item["state"],
                f"{item['seconds']:.1f}",
            ]
            for item in found
        ],
    )


def _watched(trial: dict[str, Any]) -> str:
    return f"{trial['watched'].removeprefix('validation-')}\n{trial['value']:.5f}"
