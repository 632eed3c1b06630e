"""check: what is wrong with the pipeline files, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ml_control.cli.context import App
from ml_control.cli.output import print_json
from ml_control.errors import InvalidSpec, MlControlError

if TYPE_CHECKING:
    from ml_control.core.deploy_plan import DeployPlan


@click.command()
@click.option(
    "--platform",
    type=click.Choice(["local", "aws"]),
    help="Compile the deploy plans for this platform, not the setting's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check(app: App, platform: str | None, as_json: bool) -> None:
    """Validate all pipeline files and compile their deploy plans, offline.

    Exit status 1 if one is broken or could not be deployed. Warns of what is probably not meant,
    and of experiments that cannot come to a decision at the rate that outcomes were logged at.
    """
    from ml_control.services.models.sample_size import too_few

    folder = app.folder
    _check_suites(app)
    if not folder.found and not folder.broken:
        raise InvalidSpec(
            str(app.settings.pipelines),
            "holds no pipeline",
            "make one with 'ml-control init', or name the folder with --pipelines",
        )
    plans = _compile(app, platform or app.settings.platform)
    told = {name: too_few(app.settings, pipeline) for name, pipeline in folder.found.items()}
    warnings = {name: why for name, why in sorted(told.items()) if why}
    if as_json:
        print_json(
            {
                "ok": sorted(folder.found),
                "warnings": warnings,
                "plans": {name: plan.to_json() for name, plan in plans.items()},
                "broken": {name: refusal.to_dict() for name, refusal in folder.broken.items()},
            }
        )
    else:
        _tell(app, plans, warnings)
    if folder.broken:
        raise SystemExit(1)


def _check_suites(app: App) -> None:
    """Move pipelines with an unusable suite to the broken ones."""
    from ml_control.services.authoring.pipelines import audit_columns
    from ml_control.services.data.expectations import validate_suite_deep
    from ml_control.services.data.suites import refuse_undecidable

    folder = app.folder
    for name, pipeline in list(folder.found.items()):
        if pipeline.suite is None:
            continue
        try:
            refuse_undecidable(pipeline.suite)
            validate_suite_deep(pipeline.suite, audit_columns(pipeline.spec))
        except InvalidSpec as error:
            del folder.found[name]
            file = (pipeline.folder or Path()) / (pipeline.spec.quality.expectations or "")
            where = f"{file} {error.object}"
            folder.broken[name] = InvalidSpec(where, error.reason, error.next)


def _compile(app: App, platform: str) -> dict[str, DeployPlan]:
    """Every pipeline's deploy plan; those that could not be deployed move to the broken ones."""
    from datetime import UTC, datetime

    from ml_control.core.deploy_plan import compile_plan, refusal_of

    folder, today, plans = app.folder, datetime.now(UTC).date(), {}
    for name, pipeline in sorted(folder.found.items()):
        plan = plans[name] = compile_plan(
            pipeline.spec, "aws" if platform == "aws" else "local", today
        )
        file = (pipeline.folder or Path()) / "defs.yaml"
        if (refusal := refusal_of(plan, str(file))) is not None:
            del folder.found[name]
            folder.broken[name] = refusal
    return plans


def _tell(app: App, plans: Mapping[str, DeployPlan], warnings: Mapping[str, str]) -> None:
    for name, pipeline in sorted(app.folder.found.items()):
        spec = pipeline.spec
        click.echo(
            f"ok: {name}: {spec.source.format}, {spec.columns.task}, "
            f"container {spec.training.container}"
        )
    for name, why in warnings.items():
        click.echo(f"warning: {name} rollout: {why}", err=True)
    for name, plan in plans.items():
        for one in plan.warnings:
            click.echo(f"warning: {name} {one.field}: {one.reason}; {one.instead}", err=True)
    for refusal in app.folder.broken.values():
        _tell_refusal(refusal)


def _tell_refusal(refusal: MlControlError) -> None:
    click.echo(f"error: {refusal.kind}: {refusal.object}: {refusal.reason}", err=True)
    click.echo(f"next: {refusal.next}", err=True)
    for also in refusal.detail.get("findings", [])[1:]:
        click.echo(f"also: {also['field']}: {also['reason']}; {also['instead']}", err=True)
