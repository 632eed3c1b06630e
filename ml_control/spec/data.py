"""What arrives, what its columns mean, and what a partition must fulfil."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from ml_control.spec.base import Duration, Section


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
