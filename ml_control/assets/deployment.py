"""``endpoint`` and ``ab_config``: each asks for the verdict itself, whoever materialises it."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout
from ml_control.errors import Conflict, NotProven
from ml_control.platform import Platform
from ml_control.resources import PlatformResource
from ml_control.resources.naming import asset_key, common
from ml_control.services.releases.deployment import deploy, route
from ml_control.services.releases.rollout import advance


def deployment_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """The two deployment assets of a pipeline."""
    endpoint_key, config_key = asset_key(pipeline, "endpoint"), asset_key(pipeline, "ab_config")

    @dg.asset(
        **common(pipeline, "endpoint", {"sagemaker", "http"}),
        description="The candidate on the idle variant, having answered its golden records live. "
        "Refused with NotProven unless a passing verdict exists for exactly its bytes. Skipped, "
        "with the reason, while it waits for another model's rollout or for a person's approval.",
        deps=[asset_key(pipeline, "model")],
        output_required=False,
    )
    def endpoint(
        context: dg.AssetExecutionContext, ml_control: PlatformResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        try:
            done = deploy(ml_control.open(), pipeline, context.run_id, context.log.info)
        except (Conflict, NotProven) as error:
            if not error.detail.get("waits"):
                raise
            context.log.info(f"skipped: {error}")
            return
        yield dg.MaterializeResult(
            asset_key=endpoint_key,
            data_version=dg.DataVersion(done.proven.model.version),
            metadata={
                "variant": done.variant,
                "endpoint": done.state.name,
                "state": done.state.state,
                "url": dg.MetadataValue.url(done.state.url),
                "model_version": done.proven.model.version,
                "verdict": done.proven.verdict.key,
                "golden_records": done.golden_rows,
                "started": done.changed,
            },
        )

    @dg.asset(
        **common(pipeline, "ab_config", {"router"}),
        description="The Rollout: which variant takes how much traffic. Materialising it begins "
        f"the candidate's rollout, by the pipeline's strategy; the job {pipeline.name}__rollout "
        "moves a rollout on, and each change is a version of this asset.",
        deps=[endpoint_key],
        output_required=False,
    )
    def ab_config(
        context: dg.AssetExecutionContext, ml_control: PlatformResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        platform, say = ml_control.open(), context.log.info
        before = platform.registry.rollouts.get(pipeline.name)
        if context.job_name == rollout_job_name(pipeline):
            done = advance(platform, pipeline, context.run_id, say)
            rollout = done.rollout
            say(f"nothing more now, because {done.because}")
            if rollout.version == before.version:
                return
        else:
            rollout = route(platform, pipeline, context.run_id, say)
        yield dg.MaterializeResult(
            asset_key=config_key,
            data_version=dg.DataVersion(f"{rollout.id}.{rollout.version}"),
            metadata=_metadata(platform, rollout),
        )

    return [endpoint, ab_config]


def rollout_job_name(pipeline: Pipeline) -> str:
    """The job that does what is due now: traffic, promotion, rollback, retirement."""
    return f"{pipeline.name}__rollout"


def _metadata(platform: Platform, rollout: Rollout) -> Mapping[str, Any]:
    """What people see of a Rollout, with what came of its replay."""
    found: dict[str, Any] = {
        "champion": rollout.champion or "",
        "live": rollout.live or "",
        "state": rollout.state,
        "phase": rollout.phase,
        "weights": dg.MetadataValue.json(rollout.weights),
        "rollout": dg.MetadataValue.json(rollout.to_json()),
    }
    shadow = platform.registry.experiments.shadow(rollout.pipeline, rollout.id)
    if shadow is not None:
        found |= {
            "replayed_requests": shadow.requests,
            "replay_failed": shadow.failed,
            "replay_differing_records": shadow.differing,
            "replay_largest_difference": shadow.largest,
            "replay": dg.MetadataValue.json(shadow.to_json()),
        }
    return found
