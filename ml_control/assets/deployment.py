"""``endpoint`` and ``ab_config``: each asks for the verdict itself, whoever materialises it."""

from typing import Any

import dagster as dg

from ml_control.core.pipeline import Pipeline
from ml_control.resources import PlatformResource
from ml_control.resources.naming import asset_key, common
from ml_control.services.deployment import deploy, route


def deployment_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """The two deployment assets of a pipeline."""
    endpoint_key, config_key = asset_key(pipeline, "endpoint"), asset_key(pipeline, "ab_config")

    @dg.asset(
        **common(pipeline, "endpoint", {"sagemaker", "http"}),
        description="The candidate on the idle variant, having answered its golden records live. "
        "Refused with NotProven unless a passing verdict exists for exactly its bytes.",
        deps=[asset_key(pipeline, "model")],
    )
    def endpoint(
        context: dg.AssetExecutionContext, ml_control: PlatformResource
    ) -> dg.MaterializeResult[Any]:
        done = deploy(ml_control.open(), pipeline, context.run_id, context.log.info)
        return dg.MaterializeResult(
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
        description="The Rollout: which variant takes how much traffic.",
        deps=[endpoint_key],
    )
    def ab_config(
        context: dg.AssetExecutionContext, ml_control: PlatformResource
    ) -> dg.MaterializeResult[Any]:
        rollout = route(ml_control.open(), pipeline, context.run_id, context.log.info)
        return dg.MaterializeResult(
            asset_key=config_key,
            data_version=dg.DataVersion(f"{rollout.id}.{rollout.version}"),
            metadata={
                "champion": rollout.champion or "",
                "live": rollout.live or "",
                "weights": dg.MetadataValue.json(rollout.weights),
                "rollout": dg.MetadataValue.json(rollout.to_json()),
            },
        )

    return [endpoint, ab_config]
