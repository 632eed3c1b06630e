"""Dagster components: ``ModelPipeline`` (one YAML block, one pipeline) and ``Platform``."""

from ml_control.components.model_pipeline import ModelPipeline
from ml_control.components.platform import Platform

__all__ = ["ModelPipeline", "Platform"]
