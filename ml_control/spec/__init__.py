"""The pipeline file: every field with its meaning, default and allowed range.

A ``PipelineSpec`` is what ``pipelines/<name>/defs.yaml`` says under ``attributes``. It is pure
data: reading it needs neither Dagster nor the file system.
"""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from ml_control.spec.base import NAME, Duration, Section, parse_duration, print_duration
from ml_control.spec.data import (
    Columns,
    Drift,
    FeatureColumn,
    ImageShape,
    Leakage,
    Partitioning,
    Quality,
    Source,
)
from ml_control.spec.gates import (
    DEFAULT_METRIC,
    LOWER_IS_BETTER,
    METRICS,
    Approval,
    ChampionGate,
    Gates,
    MetricGate,
    SliceGate,
)
from ml_control.spec.hosting import (
    AutoRollback,
    Endpoint,
    Instances,
    SageMakerTraining,
    Serverless,
)
from ml_control.spec.release import (
    Canary,
    Guardrails,
    LiveMetric,
    Log,
    Retrain,
    RolloutSpec,
)
from ml_control.spec.training import Hyperparameters, Split, Training, Tuning, Window

__all__ = [
    "DEFAULT_METRIC",
    "LOWER_IS_BETTER",
    "METRICS",
    "NAME",
    "Approval",
    "AutoRollback",
    "Canary",
    "ChampionGate",
    "Columns",
    "Drift",
    "Duration",
    "Endpoint",
    "FeatureColumn",
    "Gates",
    "Guardrails",
    "Hyperparameters",
    "ImageShape",
    "Instances",
    "Leakage",
    "LiveMetric",
    "Log",
    "MetricGate",
    "Partitioning",
    "PipelineSpec",
    "Quality",
    "Retrain",
    "RolloutSpec",
    "SageMakerTraining",
    "Section",
    "Serverless",
    "SliceGate",
    "Source",
    "Split",
    "Training",
    "Tuning",
    "Window",
    "parse_duration",
    "print_duration",
]


class PipelineSpec(Section):
    """One pipeline: what arrives, what must hold, what is trained, what may serve."""

    name: str = Field("", description="Pipeline name; the folder's if left out.")
    description: str = Field("", description="One line for the asset catalogue.")
    owners: tuple[str, ...] = Field((), description="Dagster owners: an email, or team:<name>.")
    source: Source = Field(description="What arrives, and in what form.")
    columns: Columns = Field(description="The target and the features.")
    quality: Quality = Field(default_factory=Quality, description="What a partition must fulfil.")
    training: Training = Field(default_factory=Training, description="How a model is trained.")
    retrain: Retrain = Field(default_factory=Retrain, description="When a new model is trained.")
    gates: Gates = Field(default_factory=Gates, description="What a model must fulfil.")
    endpoint: Endpoint = Field(
        default_factory=Endpoint, description="What serves a variant on AWS."
    )
    rollout: RolloutSpec = Field(
        default_factory=RolloutSpec, description="How a proven model takes over."
    )
    log: Log = Field(default_factory=Log, description="What is kept of predictions.")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if value and not NAME.match(value):
            raise ValueError(
                f"{value!r} is not a pipeline name: lower-case letters, digits and _, "
                "beginning with a letter, at most 48"
            )
        return value

    @field_validator("owners")
    @classmethod
    def _owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for owner in value:
            if not re.match(r"^(team:[A-Za-z0-9_.-]+|[^@\s]+@[^@\s]+\.[^@\s]+)\Z", owner):
                raise ValueError(f"{owner!r} is neither an email address nor team:<name>")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> PipelineSpec:
        if self.source.format == "images" and self.columns.features:
            raise ValueError("columns.features must be empty for images: the pixels are them")
        if self.source.format != "images" and not self.columns.features:
            raise ValueError("columns.features must name at least one column")
        allowed = METRICS[self.columns.task]
        named = set(self.gates.metrics) | ({self.gates.champion.metric or ""} - {""})
        named |= {one.metric for one in self.gates.slices}
        if wrong := sorted(named - allowed):
            raise ValueError(
                f"gates name {', '.join(wrong)}, which {self.columns.task} does not have; "
                f"it has {', '.join(sorted(allowed))}"
            )
        categories = {f.name for f in self.columns.features if f.type == "category"}
        if unknown := sorted({one.column for one in self.gates.slices} - categories):
            raise ValueError(
                f"gates.slices name {', '.join(unknown)}; a slice needs a declared category "
                f"({', '.join(sorted(categories)) or 'there is none'})"
            )
        known = {self.columns.target, *(f.name for f in self.columns.features)}
        if unknown := sorted(set(self.log.mask) - known - set(self.columns.ignore) - {"image"}):
            raise ValueError(f"log.mask names {', '.join(unknown)}, which is no column")
        if self.training.class_weights != "none" and self.columns.task == "regression":
            raise ValueError("training.class_weights belong to tasks with classes")
        return self

    @property
    def champion_metric(self) -> str:
        """The metric the champion comparison uses."""
        return self.gates.champion.metric or DEFAULT_METRIC[self.columns.task]
