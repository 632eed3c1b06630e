"""The pipeline file: every field with its meaning, default and allowed range.

A ``PipelineSpec`` is what ``pipelines/<name>/defs.yaml`` says under ``attributes``. It is pure
data: reading it needs neither Dagster nor the file system.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}\Z")
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)\s*$")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> float:
    """Seconds from ``"500 ms"``, ``"2 s"``, ``"15 min"``, ``"1 h"`` or ``"7 d"``.

    A bare number is refused: a duration without its unit is how minutes become seconds.
    """
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return float(match[1]) * _UNITS[match[2]]
    raise ValueError(f"{value!r} is not a duration; write a number and ms, s, min, h or d ('2 s')")


def print_duration(seconds: float) -> str:
    """The text that :func:`parse_duration` reads back as exactly these seconds."""
    return f"{Decimal(repr(seconds)):f} s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(print_duration, when_used="json"),
]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of the pipeline file: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Partitioning(Section):
    """How arriving objects are cut into partitions (UTC)."""

    by: Literal["hour", "day", "week", "month"] = Field(
        "day", description="Length of a partition, in UTC."
    )
    start: date = Field(description="First partition; an object before it is quarantined.")


class ImageShape(Section):
    """The shape every image is brought to."""

    height: int = Field(32, ge=1, le=1024, description="Rows of pixels after resizing.")
    width: int = Field(32, ge=1, le=1024, description="Columns of pixels after resizing.")
    mode: Literal["grey", "colour"] = Field("grey", description="Channels kept: one or three.")


class Source(Section):
    """What arrives, and in what form."""

    format: Literal["csv", "parquet", "jsonl", "images"] = Field(
        description="csv: a header and one record a line; parquet; jsonl: one JSON object a line; "
        "images: PNG or JPEG, label = folder name."
    )
    partition: Partitioning = Field(description="How objects are cut into partitions.")
    missing: tuple[str, ...] = Field(
        ("", "NA", "?"), description="Cell texts that mean a missing value, after trimming."
    )
    settle: Duration = Field(
        2.0, ge=0, le=3600, description="A bare copy counts as whole when unchanged this long."
    )
    quiet: Duration = Field(
        5.0,
        ge=0,
        le=3600,
        description="A partition is ingested once nothing has arrived for it for so long.",
    )
    max_wait: Duration = Field(
        300.0,
        ge=0,
        le=86400,
        description="A partition that stays busy is ingested so long after its first new object.",
    )
    on_bad_object: Literal["quarantine", "fail"] = Field(
        "quarantine", description="Set a bad object aside and go on, or fail the partition."
    )
    image: ImageShape = Field(
        default_factory=ImageShape, description="For format images: the shape kept."
    )


class FeatureColumn(Section):
    """One input column of the model."""

    name: str = Field(min_length=1, max_length=256, description="Column name, as in the header.")
    type: Literal["number", "category"] = Field(description="How the model reads the column.")
    min: float | None = Field(None, description="Smallest plausible value; below it is missing.")
    max: float | None = Field(None, description="Largest plausible value; above it is missing.")

    @model_validator(mode="after")
    def _range(self) -> FeatureColumn:
        if self.type == "category" and (self.min is not None or self.max is not None):
            raise ValueError(f"{self.name}: min and max belong to type number")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"{self.name}: min {self.min} is above max {self.max}")
        return self


class Columns(Section):
    """The target and the features."""

    target: str = Field(
        "label", min_length=1, description="Column to predict; for images the folder name."
    )
    task: Literal["binary", "multiclass", "regression"] = Field(
        description="What kind of prediction."
    )
    positive: str | None = Field(
        None, description="For binary: the class whose probability is the score."
    )
    features: tuple[FeatureColumn, ...] = Field(
        (), description="Input columns, in the model's order; empty for images."
    )
    ignore: tuple[str, ...] = Field((), description="Columns that may be there and are not used.")

    @model_validator(mode="after")
    def _consistent(self) -> Columns:
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features named twice: {', '.join(twice)}")
        if self.target in names:
            raise ValueError(f"the target {self.target!r} cannot also be a feature")
        overlap = sorted(set(self.ignore) & {*names, self.target})
        if overlap:
            raise ValueError(f"both used and ignored: {', '.join(overlap)}")
        if self.positive is not None and self.task != "binary":
            raise ValueError("positive belongs to task binary")
        if self.task == "binary" and self.positive is None:
            raise ValueError("task binary needs positive: the class whose probability is the score")
        return self


class Drift(Section):
    """How far a partition's values may be from those that the newest model was trained on."""

    max_psi: float = Field(
        0.2, gt=0, description="Largest population stability index of a column that passes."
    )
    blocking: bool = Field(
        False, description="Refuse a partition that drifted, instead of only saying so."
    )


class Leakage(Section):
    """Whether one column alone gives the target away."""

    max_score: float = Field(
        0.999,
        gt=0.5,
        le=1,
        description="Largest score of one column alone: AUC for classes, R2 for numbers.",
    )
    blocking: bool = Field(
        True, description="Refuse a partition with such a column, instead of only saying so."
    )


class Quality(Section):
    """What a partition must fulfil before it is published."""

    expectations: str | None = Field(
        None, description="Great Expectations suite (JSON), relative to this file."
    )
    min_rows: int = Field(1, ge=1, description="Fewest rows a published partition may have.")
    max_duplicates: float = Field(
        1.0, ge=0, le=1, description="Largest share of rows that may repeat an earlier row exactly."
    )
    drift: Drift = Field(default_factory=Drift, description="Distance from the training data.")
    leakage: Leakage = Field(
        default_factory=Leakage, description="Columns that give the target away."
    )


class Split(Section):
    """How rows are set apart; by a hash of their content, so equal rows stay together."""

    by: Literal["hash"] = Field("hash", description="Stable hash of the row's content.")
    validation: Share = Field(0.1, gt=0, description="Share used for early stopping.")
    test: Share = Field(0.2, gt=0, description="Share touched once, by the gates.")

    @model_validator(mode="after")
    def _leaves_training(self) -> Split:
        if self.validation + self.test >= 0.9:
            raise ValueError("validation and test together leave less than a tenth to train on")
        return self


class Window(Section):
    """Which partitions a model is trained on."""

    partitions: int = Field(90, ge=1, le=10_000, description="Newest published partitions used.")


Hyperparameters = dict[str, float | int | str]


def _usual_hyperparameters() -> Hyperparameters:
    return {"num_round": 200, "max_depth": 6, "eta": 0.1}


class Tuning(Section):
    """A search for hyperparameters, judged on the validation split."""

    trials: int = Field(20, ge=1, le=1000, description="Hyperparameter settings tried.")
    ranges: dict[str, tuple[float, float]] = Field(
        min_length=1,
        description="Lowest and highest value of each hyperparameter that is searched.",
    )
    max_runtime: Duration = Field(
        6 * 3600.0, gt=0, description="No trial is started after so long; the best so far counts."
    )

    @field_validator("ranges")
    @classmethod
    def _ordered(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in value.items():
            if not low < high:
                raise ValueError(f"{name}: the lowest value {low:g} is not below {high:g}")
        return value


class Training(Section):
    """How a model is trained."""

    container: str = Field("3.2-0", description="SageMaker XGBoost container version.")
    window: Window = Field(default_factory=Window, description="Partitions used.")
    split: Split = Field(default_factory=Split, description="Rows set apart.")
    hyperparameters: Hyperparameters = Field(
        default_factory=_usual_hyperparameters,
        description="Hyperparameters of the XGBoost container (algorithm mode).",
    )
    early_stopping_rounds: int | None = Field(
        20, ge=1, description="Stop when validation has not improved for so many rounds."
    )
    max_runtime: Duration = Field(
        3600.0, gt=0, description="A training job running longer is ended."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: each class weighs the same in training, however rare it is."
    )
    tuning: Tuning | None = Field(None, description="Search for hyperparameters; none if unset.")
    memory_mb: int = Field(
        4096,
        ge=64,
        description="Training data above so many megabytes is read from disk in every round "
        "(external memory).",
    )

    @field_validator("hyperparameters")
    @classmethod
    def _reserved(cls, value: Hyperparameters) -> Hyperparameters:
        reserved = sorted(
            set(value) & {"objective", "num_class", "eval_metric", "early_stopping_rounds"}
        )
        if reserved:
            raise ValueError(f"set by task and early_stopping_rounds, not here: {reserved}")
        return {"num_round": 200, **value}


class MetricGate(Section):
    """Bounds for one metric on the test split."""

    min: float | None = Field(None, description="Smallest passing value.")
    max: float | None = Field(None, description="Largest passing value.")

    @model_validator(mode="after")
    def _some_bound(self) -> MetricGate:
        if self.min is None and self.max is None:
            raise ValueError("a metric gate needs min or max")
        return self


METRICS: dict[str, frozenset[str]] = {
    "binary": frozenset({"auc", "accuracy", "f1", "precision", "recall", "logloss"}),
    "multiclass": frozenset({"accuracy", "f1_macro", "logloss"}),
    "regression": frozenset({"rmse", "mae", "r2"}),
}
DEFAULT_METRIC = {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}
LOWER_IS_BETTER = frozenset({"logloss", "rmse", "mae"})


class ChampionGate(Section):
    """The new model must not be worse than the serving one on the same test rows."""

    metric: str | None = Field(None, description="Metric compared; the task's usual one if unset.")
    margin: float = Field(
        0.01, ge=0, description="How much worse the lower confidence bound may be."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="One-sided confidence of the bound.")


class SliceGate(Section):
    """A bound for one metric within each group of test rows that share a column's value."""

    column: str = Field(min_length=1, description="A declared category; each level is a group.")
    metric: str = Field(description="A metric of the task.")
    min: float | None = Field(None, description="Smallest passing value, in every group.")
    max: float | None = Field(None, description="Largest passing value, in every group.")
    min_rows: int = Field(
        50, ge=1, description="Groups with fewer test rows are shown and not judged."
    )

    @model_validator(mode="after")
    def _some_bound(self) -> SliceGate:
        if self.min is None and self.max is None:
            raise ValueError("a slice needs min or max")
        return self


class Gates(Section):
    """What a model must fulfil before it may be deployed."""

    metrics: dict[str, MetricGate] = Field(
        default_factory=dict, description="Bounds by metric name, on the test split."
    )
    champion: ChampionGate = Field(
        default_factory=ChampionGate, description="Comparison with the serving model."
    )
    slices: tuple[SliceGate, ...] = Field(
        (), description="Bounds that must hold in each group of rows, not only on average."
    )
    latency_p99: Duration | None = Field(
        None, gt=0, description="Slowest passing 99th percentile of predicting one row in process."
    )
    max_size_mb: float | None = Field(
        None, gt=0, description="Largest passing model.tar.gz, in megabytes (10^6 bytes)."
    )


class Retrain(Section):
    """When a new model is trained."""

    automatic: bool = Field(True, description="Train when a partition was published.")
    max_attempts: int = Field(3, ge=1, le=20, description="Tries for one dataset before halting.")


class RolloutSpec(Section):
    """How a proven model takes over."""

    strategy: Literal["all_at_once"] = Field(
        "all_at_once", description="A proven model takes all traffic; the other variant stays up."
    )


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
    rollout: RolloutSpec = Field(
        default_factory=RolloutSpec, description="How a proven model takes over."
    )

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
        if self.training.class_weights != "none" and self.columns.task == "regression":
            raise ValueError("training.class_weights belong to tasks with classes")
        return self

    @property
    def champion_metric(self) -> str:
        """The metric the champion comparison uses."""
        return self.gates.champion.metric or DEFAULT_METRIC[self.columns.task]
