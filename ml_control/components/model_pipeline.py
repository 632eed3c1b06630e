"""One YAML block becomes one pipeline: five assets, three jobs, three sensors."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import BaseModel

from ml_control.assets.dataset import dataset_assets
from ml_control.assets.deployment import deployment_assets, rollout_job_name
from ml_control.assets.model import model_asset
from ml_control.core.pipeline import Pipeline
from ml_control.errors import InvalidSpec
from ml_control.resources.naming import asset_key, partitions_of
from ml_control.sensors.arrivals import arrivals_sensor
from ml_control.sensors.retraining import retraining_sensor
from ml_control.sensors.rollout import rollout_sensor
from ml_control.services.authoring.pipelines import assemble
from ml_control.settings import load_settings
from ml_control.spec import PipelineSpec


class ModelPipeline(dg.Component):
    """Drop data in; it is checked, trained on, proven, and only what passed is deployed."""

    def __init__(self, spec: PipelineSpec, folder: Path | None = None) -> None:
        self.spec = spec
        self.folder = folder

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The pipeline file's attributes, every field described."""
        return PipelineSpec

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How ``dg`` lists the component."""
        return dg.ComponentTypeSpec(
            description="Data in, proven models out: one pipeline of ml-control.",
            tags=["ml", "xgboost", "sagemaker"],
        )

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> ModelPipeline:
        """The component from its validated attributes."""
        if not isinstance(attributes, PipelineSpec):
            raise InvalidSpec(str(context.path), "has no attributes", "see 'ml-control schema'")
        return cls(attributes, Path(context.path))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's definitions. Raises ``InvalidSpec`` for what no field alone shows."""
        folder = self.folder or Path(context.path)
        return pipeline_defs(assemble(self.spec, folder, load_settings().yaml_env))


def pipeline_defs(pipeline: Pipeline) -> dg.Definitions:
    """Assets, jobs and sensors of one pipeline; resources come from ``Platform``."""

    def keys(*names: str) -> dg.AssetSelection:
        return dg.AssetSelection.assets(*(asset_key(pipeline, name) for name in names))

    ingest = dg.define_asset_job(
        f"{pipeline.name}__ingest",
        selection=keys("raw", "processed"),
        partitions_def=partitions_of(pipeline),
        executor_def=dg.in_process_executor,
        description="Admit what landed, audit it, publish it.",
    )
    train = dg.define_asset_job(
        f"{pipeline.name}__train",
        selection=keys("model", "endpoint", "ab_config"),
        executor_def=dg.in_process_executor,
        description="Train on what is published, prove it, deploy only what passed.",
    )
    rollout = dg.define_asset_job(
        rollout_job_name(pipeline),
        selection=keys("ab_config"),
        executor_def=dg.in_process_executor,
        description="Move the rollout on: replay, traffic, promotion, rollback, retirement.",
    )
    return dg.Definitions(
        assets=[
            *dataset_assets(pipeline),
            model_asset(pipeline),
            *deployment_assets(pipeline),
        ],
        jobs=[ingest, train, rollout],
        sensors=[
            arrivals_sensor(pipeline, ingest.name),
            retraining_sensor(pipeline, train.name),
            rollout_sensor(pipeline, rollout, train),
        ],
    )
