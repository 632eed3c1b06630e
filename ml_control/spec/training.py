"""How a model is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ml_control.spec.base import Duration, Section, Share
from ml_control.spec.hosting import SageMakerTraining


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
    sagemaker: SageMakerTraining = Field(
        default_factory=SageMakerTraining, description="The training job's machines on AWS."
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
