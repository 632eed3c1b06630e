"""``model``: trained on published data, proven, judged; each gate shown as an asset check."""

import base64
from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_control.core.gates import gate_names
from ml_control.core.pipeline import Pipeline
from ml_control.resources import PlatformResource
from ml_control.resources.naming import asset_key, check_metadata, check_name, common
from ml_control.services.models.training import Trained, train


def model_asset(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The model asset of a pipeline."""
    key = asset_key(pipeline, "model")
    names = [check_name(name) for name in gate_names(pipeline.spec)]

    @dg.asset(
        **common(pipeline, "model", {"xgboost"}),
        description="A packaged model with its verdict. The data version is the digest of its "
        "files; a failed gate stops what follows, and the registry enforces it on every path.",
        deps=[asset_key(pipeline, "processed")],
        check_specs=[dg.AssetCheckSpec(name=name, asset=key, blocking=True) for name in names],
    )
    def model(
        context: dg.AssetExecutionContext, ml_control: PlatformResource
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        platform = ml_control.open()
        done = train(platform, pipeline, context.run_id, context.log.info)
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(done.model.version),
            metadata=_metadata(done, platform.lake.uri(f"{done.model.prefix}/report.html")),
        )
        for gate in done.verdict.gates:
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=check_name(gate.name),
                passed=gate.passed,
                severity=dg.AssetCheckSeverity.ERROR,
                description=gate.reason,
                metadata=check_metadata(gate),
            )

    return model


def _metadata(done: Trained, report: str) -> dict[str, Any]:
    model, verdict = done.model, done.verdict
    found: dict[str, Any] = {
        "verdict": "passed" if verdict.passed else f"refused: {', '.join(verdict.failed)}",
        "model_version": model.version,
        "training_job": model.training_job,
        "dataset": model.dataset.digest,
        "rows": model.dataset.rows,
        "partitions": len(model.dataset.parts),
        "trees_rounds": model.best_iteration + 1,
        "container": model.container,
        "adopted": done.result.adopted,
        "new": done.is_new,
        "report": dg.MetadataValue.path(report),
    }
    found |= {f"test_{name}": float(value) for name, value in verdict.metrics.items()}
    if done.left_out:
        lines = [f"- {name}: {why}" for name, why in sorted(done.left_out.items())]
        found["left_out"] = dg.MetadataValue.md("\n".join(lines))
    for name, png in done.plots.items():
        image = base64.b64encode(png).decode()
        found[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{image})")
    return found
