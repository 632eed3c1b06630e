"""why: the causal chain from objects to the live model, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json, when
from ml_control.cli.timeline import by, ui_of
from ml_control.cli.views import as_json_option

if TYPE_CHECKING:
    from rich.tree import Tree

_SHORT = 12
_OBJECTS = 3  # named for each partition
_PARTITIONS = 10


@click.command()
@click.argument("pipeline")
@click.option("--version", help="Of this model version instead of the live one.")
@click.option("--object", "key", help="From this object forward: models trained on it.")
@click.option("--request", "request_id", help="Who answered this request, and from what data.")
@as_json_option
@click.pass_obj
def why(
    app: App,
    pipeline: str,
    version: str | None,
    key: str | None,
    request_id: str | None,
    as_json: bool,
) -> None:
    """The chain from objects to the live model, or from an object or request to its model."""
    from ml_control.services.reading import lineage

    if sum(item is not None for item in (version, key, request_id)) > 1:
        raise click.UsageError("--version, --object and --request exclude each other")
    found, ui = app.pipeline(pipeline), ui_of(app)
    if key is not None:
        seen = lineage.of_object(app.platform, found, key, ui=ui)
    elif request_id is not None:
        seen = lineage.of_request(app.platform, found, request_id, ui=ui)
    else:
        seen = lineage.why(app.platform, found, version, ui=ui)
    if as_json:
        print_json(seen)
    elif key is not None:
        _print(_object_tree(seen))
    elif request_id is not None:
        _print(_request_tree(seen))
    elif seen["live"] is None and "model_version" not in seen:
        click.echo(f"{pipeline}: nothing is live, because {seen['because']}")
    else:
        _print(_model_tree(seen))


def _print(tree: Tree) -> None:
    from rich.console import Console

    Console().print(tree)


def _tree(text: str) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    return Tree(Text(text))


def _add(tree: Tree, text: str) -> Tree:
    from rich.text import Text

    return tree.add(Text(text))


def _model_tree(seen: dict[str, Any]) -> Tree:
    """Live model at the root, what it came from below it, the cause always under its effect."""
    version = seen["model_version"]
    tree = _tree(f"live: model {version}" if seen["live"] else f"model {version}, not live")
    for span in seen["served"]:
        until = when(span["until"]) if span["until"] is not None else "now"
        _add(tree, f"took traffic {when(span['since'])} to {until}")
    for step in seen["rollout"]:
        _add(tree, f"{step['action']} {when(step['at'])} because {step['because']} ({by(step)})")
    for word in seen["approval"]:
        _add(tree, f"{word['action']} {when(word['at'])}: {word['because']} ({word['actor']})")
    verdict = seen["verdict"]
    if verdict:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in verdict["metrics"].items())
        said = (
            f"{len(verdict['gates'])} gates passed"
            if verdict["passed"]
            else f"refused by {', '.join(verdict['failed'])}"
        )
        node = _add(tree, f"verdict: {said}; {metrics}")
        for gate in verdict["gates"]:
            if not gate["passed"]:
                _add(node, f"{gate['name']}: {gate['reason']}")
    run = {"run": seen["runs"]["trained"], "url": seen["urls"]["trained"]}
    job = _add(tree, f"trained by job {seen['training_job']} ({by(run)})")
    trigger = seen["trigger"]
    asked = f" {when(trigger['at'])}" if trigger["at"] is not None else ""
    _add(job, f"asked for{asked}: {trigger['because']}")
    data = _add(job, f"on dataset {seen['dataset'][:_SHORT]}")
    for part in seen["partitions"][-_PARTITIONS:]:
        _add_partition(data, part)
    if len(seen["partitions"]) > _PARTITIONS:
        _add(data, f"and {len(seen['partitions']) - _PARTITIONS} earlier partitions (--json)")
    return tree


def _add_partition(data: Tree, part: dict[str, Any]) -> None:
    keys = part["objects"]
    node = _add(
        data,
        f"partition {part['partition']}: {part['rows']} rows from {len(keys)} objects "
        f"(data {part['data_version'][:_SHORT]})",
    )
    if checked := part["checks"]:
        said = "passed" if checked["passed"] else f"failed: {checked['reason']}"
        _add(node, f"{len(checked['checks'])} data checks {said}")
    for key in keys[:_OBJECTS]:
        _add(node, key)
    if len(keys) > _OBJECTS:
        _add(node, f"and {len(keys) - _OBJECTS} more objects (--json)")


def _object_tree(seen: dict[str, Any]) -> Tree:
    tree = _tree(f"object {seen['object']}")
    for event in seen["events"]:
        reason = f": {event['reason']}" if event["reason"] else ""
        _add(
            tree,
            f"version {event['version'][:_SHORT]} of {when(event['recorded_at'])} in partition "
            f"{event['partition']}: {event['state']}{reason}",
        )
    if not seen["models"]:
        _add(tree, "no model was trained on it")
    for model in seen["models"]:
        versions = ", ".join(v[:_SHORT] for v in model["object_versions"])
        node = _add(
            tree,
            f"model {model['version'][:_SHORT]} of {when(model['created_at'])} was trained on "
            f"version {versions} ({by(model)})",
        )
        for span in model["served"]:
            until = when(span["until"]) if span["until"] is not None else "now"
            _add(node, f"took traffic {when(span['since'])} to {until}")
        if not model["served"]:
            _add(node, "was never live")
    return tree


def _request_tree(seen: dict[str, Any]) -> Tree:
    asked = seen["request"]
    tree = _tree(f"request {asked['request_id']} of {when(asked['at'])}")
    role = "the challenger" if asked["challenger"] else "the champion"
    _add(
        tree,
        f"entity {asked['entity_id'] or '(none)'} belongs to variant {asked['assigned']}, {role} "
        f"of rollout {asked['rollout_id']}",
    )
    if asked["served"] is None:
        _add(tree, f"nobody answered: {asked['failure']}")
        return tree
    if asked["failed"]:
        _add(tree, f"variant {asked['assigned']} failed: {asked['failure']}")
    answered = f"variant {asked['served']} answered with model {asked['model_version']}"
    node = _add(tree, answered)
    if seen["chain"]:
        node.add(_model_tree(seen["chain"]))
    return tree
