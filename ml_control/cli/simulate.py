"""simulate: what would this rule have done?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table, when
from ml_control.cli.views import as_json_option

_SHORT = 12


@click.command()
@click.argument("pipeline")
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE",
              help="A setting to try: retrain.min_new_rows=5000. May be repeated.")  # fmt: skip
@click.option("--since", help="Only what was since: YYYY-MM-DD[THH:MM[:SS]] or '30 d ago'.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False),
              help="Draw the decisions over time into this PNG or SVG.")  # fmt: skip
@as_json_option
@click.pass_obj
def simulate(
    app: App,
    pipeline: str,
    assignments: tuple[str, ...],
    since: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay the recorded history through the policies under changed settings; writes nothing."""
    from ml_control.core.moments import moment_of
    from ml_control.services.reading import simulation

    tried, made = simulation.changed(app.pipeline(pipeline), assignments)
    platform = app.platform
    begin = moment_of(since, platform.registry.clock(), "--since") if since else None
    found = simulation.simulate(platform, tried, made, begin)
    if plot is not None:
        from ml_control.services.models.plots.simulated import save

        save(found, plot)
    if as_json:
        print_json(found)
        return
    settings = ", ".join(f"{name}={value}" for name, value in made.items())
    click.echo(f"{pipeline}: simulated with {settings or 'its own settings'}")
    _print_trainings(pipeline, found["trainings"])
    _print_experiments(found["experiments"])
    click.echo(f"assumed: {'; '.join(found['assumed'])}")
    if plot is not None:
        click.echo(f"plot: {plot}")


def _print_trainings(pipeline: str, trainings: dict[str, list[dict[str, Any]]]) -> None:
    rows = [
        (one["at"], "simulated", one["dataset"], f"{one['new_rows']} new rows: {one['because']}")
        for one in trainings["simulated"]
    ]
    rows += [
        (one["at"], "really", one["dataset"], f"{one['outcome'] or 'no verdict'}: {one['because']}")
        for one in trainings["real"]
    ]
    counts = {name: len(found) for name, found in trainings.items()}
    print_table(
        f"{pipeline}: {counts['simulated']} trainings simulated, {counts['real']} really",
        ["when (UTC)", "", "data", "because"],
        [[when(at), how, data[:_SHORT], why] for at, how, data, why in sorted(rows)],
    )


def _print_experiments(experiments: list[dict[str, Any]]) -> None:
    for trial in experiments:
        version = (trial["model_version"] or "?")[:_SHORT]
        click.echo(f"rollout {trial['rollout']} of model {version} ({trial['strategy']})")
        done, real = trial["simulated"], trial["real"]
        if done is None:
            click.echo(f"  simulated: not replayed: {trial['because']}")
        elif done["at"] is None:
            click.echo(
                f"  simulated: undecided after {done['outcomes']} outcomes: {done['because']}"
            )
        else:
            click.echo(
                f"  simulated: {done['decision']} {when(done['at'])}, at outcome "
                f"{done['outcomes']}: {done['because']}"
            )
        if real:
            click.echo(f"  really: {real['decision']} {when(real['at'])}: {real['because']}")
        else:
            click.echo("  really: not ended")
