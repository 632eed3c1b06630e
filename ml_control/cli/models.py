"""compare and score: models beside each other, and a model over a partition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, print_table, when
from ml_control.cli.views import as_json_option

_SHORT = 12
_NAMED = 5


@click.command()
@click.argument("pipeline")
@click.argument("a")
@click.argument("b")
@as_json_option
@click.pass_obj
def compare(app: App, pipeline: str, a: str, b: str, as_json: bool) -> None:
    """Two model versions beside each other; 'champion' and 'candidate' name versions too."""
    from ml_control.services.reading.comparing import compare as view

    found = view(app.platform, app.pipeline(pipeline), a, b)
    if as_json:
        print_json(found)
        return
    one, two = found["a"], found["b"]
    rows = [
        ["made", when(one["created_at"]), when(two["created_at"]), ""],
        ["rows", one["rows"], two["rows"], f"{two['rows'] - one['rows']:+d}"],
        ["partitions", one["partitions"], two["partitions"], ""],
        ["gates", _gates(one), _gates(two), ""],
    ]
    for name, item in found["metrics"].items():
        better = f" ({item['better']} is better)" if item["better"] else ""
        said = f"{item['difference']:+.4g}{better}" if item["difference"] is not None else ""
        rows.append([name, _number(item["a"]), _number(item["b"]), said])
    for gate, levels in found["slices"].items():
        for level, sides in levels.items():
            cells = [_number(sides[s]["value"]) if s in sides else "-" for s in "ab"]
            rows.append([f"{gate} {level}", *cells, ""])
    for name, item in found["hyperparameters"].items():
        rows.append([name, item["a"] or "-", item["b"] or "-", ""])
    rounds = found["rounds"]
    rows.append(["rounds kept", rounds["a"], rounds["b"], f"{rounds['b'] - rounds['a']:+d}"])
    title = f"{pipeline}: a {one['version'][:_SHORT]}, b {two['version'][:_SHORT]}"
    print_table(title, ["", "a", "b", "b minus a"], rows)
    if not found["same_test"]:
        click.echo("the metrics are of different test rows: a difference may come from them")
    data = found["data"]
    for side in "ab":
        if keys := data[f"only_{side}"]:
            click.echo(f"data of {side} alone: {_some(keys)}")
    if data["changed"]:
        click.echo(f"data that changed: {_some(data['changed'])}")
    _say_features(found["features"])


def _say_features(features: dict[str, Any]) -> None:
    if features.get("unreadable"):
        click.echo(f"features: {features['unreadable']}")
    elif features["same"]:
        click.echo("features: the same")
    else:
        for side in "ab":
            if names := features[f"only_{side}"]:
                click.echo(f"features of {side} alone: {_some(names)}")
        for name, change in features["changed"].items():
            click.echo(f"feature {name} differs in {', '.join(change)}")


def _gates(side: dict[str, Any]) -> str:
    if side["passed"] is None:
        return "not judged"
    return "passed" if side["passed"] else f"refused: {', '.join(side['failed'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


@click.command()
@click.argument("pipeline")
@click.option("--partition", required=True, help="A published partition.")
@click.option("--version", help="This proven model version (default: the live one).")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Also as one Parquet file."
)
@as_json_option
@click.pass_obj
def score(
    app: App,
    pipeline: str,
    partition: str,
    version: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Score a published partition offline with a proven model; kept in the lake, once."""
    from ml_control.services.models import scoring

    platform = app.platform
    found = app.pipeline(pipeline)
    done = scoring.score(
        platform, found, partition, lambda text: click.echo(text, err=True), version
    )
    told = done.to_json(platform.lake.uri(done.folder))
    if output is not None:
        scoring.write_out(platform, done, output)
        told["output"] = str(output)
    if as_json:
        print_json(told)
        return
    was = "were there already" if done.adopted else "scored"
    click.echo(
        f"{pipeline} {partition}: {done.rows} rows {was} with model "
        f"{done.model_version[:_SHORT]} on data {done.data_version[:_SHORT]}"
    )
    click.echo(f"in {told['uri']}" + (f" and {output}" if output is not None else ""))
