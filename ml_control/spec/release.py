"""When a new model is trained, how it takes over, and what is kept of its answers."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ml_control.spec.base import Duration, Section, parse_duration


class Retrain(Section):
    """When a new model is trained. A trigger asks; quiet, cooldown and budget may make it wait."""

    automatic: bool = Field(True, description="Train when a trigger asks for it.")
    max_attempts: int = Field(3, ge=1, le=20, description="Tries for one dataset before halting.")
    min_new_rows: int = Field(
        1, ge=1, description="Trigger: so many published rows that the newest model does not know."
    )
    every: str | None = Field(
        None,
        description="Trigger: so long after the last training ('7 d'), or at the times of a cron "
        "expression in UTC ('0 3 * * 1'); the data may be the same.",
    )
    on_drift: bool = Field(
        False,
        description="Trigger: new partitions or live requests drifted from the training data, or "
        "live quality fell.",
    )
    quiet: Duration = Field(
        0.0, ge=0, le=86400, description="Wait until nothing was published for so long."
    )
    max_wait: Duration = Field(
        900.0,
        ge=0,
        description="Wait for quiet, and for data that is coming in, no longer than so after a "
        "trigger.",
    )
    cooldown: Duration = Field(0.0, ge=0, description="Shortest time between two trainings.")
    max_per_day: int = Field(
        100, ge=1, le=10_000, description="Most trainings within 24 hours, by any trigger."
    )

    @field_validator("every")
    @classmethod
    def _rate_or_cron(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from croniter import croniter

        if len(value.split()) == 5 and croniter.is_valid(value):
            return value
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise ValueError(
                f"{value!r} is neither a duration ('7 d') nor a cron expression ('0 3 * * 1')"
            ) from error
        if seconds < 60:
            raise ValueError(f"{value!r} is shorter than a minute")
        return value


class Canary(Section):
    """Traffic in steps, each held for a while and judged by alarms."""

    steps: tuple[float, ...] = Field(
        (0.05, 0.25, 1.0), min_length=1, description="The challenger's share at each step."
    )
    bake: Duration = Field(600.0, ge=0, description="How long each step is held.")

    @field_validator("steps")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        rising = all(a < b for a, b in itertools.pairwise(value))
        if not rising or value[0] <= 0 or value[-1] != 1.0:
            raise ValueError("steps must rise from above 0 to exactly 1")
        return value


class LiveMetric(Section):
    """What an experiment compares, computed from outcomes."""

    name: str = Field(
        "accuracy",
        min_length=1,
        max_length=64,
        description="accuracy: whether the label was right; error: the absolute difference "
        "(regression); any other name: the number under it in an outcome.",
    )
    kind: Literal["proportion", "mean"] = Field(
        "proportion", description="proportion: 0 or 1 for each outcome; mean: any number."
    )
    higher_is_better: bool = Field(True, description="Whether larger is better.")


class Guardrails(Section):
    """What a challenger must not do, however good its metric is."""

    error_rate: float | None = Field(
        0.01, gt=0, lt=1, description="Largest share of its requests that may fail."
    )
    latency_p99: Duration | None = Field(
        None, gt=0, description="Largest 99th percentile of its latency."
    )
    alarms: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="CloudWatch alarms on AWS: one that fires takes the challenger back, one "
        "without data holds it.",
    )


class RolloutSpec(Section):
    """How a proven model takes over."""

    strategy: Literal["all_at_once", "canary", "ab_test"] = Field(
        "all_at_once",
        description="all_at_once: all traffic; canary: in steps, by alarms; ab_test: a share, "
        "until evidence decides.",
    )
    canary: Canary = Field(default_factory=Canary, description="For strategy canary.")
    challenger_weight: float = Field(
        0.5, gt=0, lt=1, description="For ab_test: the challenger's share of entities."
    )
    metric: LiveMetric = Field(default_factory=LiveMetric, description="For ab_test: what decides.")
    alpha: float = Field(
        0.05, gt=0, le=0.5, description="Largest probability of promoting what is not better."
    )
    min_samples: int = Field(
        500, ge=2, description="Entities with an outcome, for each variant, before any decision."
    )
    max_duration: Duration = Field(
        14 * 86400.0, gt=0, description="Without a decision by then the champion stays."
    )
    keep_alive: Duration = Field(
        86400.0, ge=0, description="How long the losing variant stays up for an instant rollback."
    )
    shadow_requests: int = Field(
        200,
        ge=0,
        le=100_000,
        description="Newest logged requests replayed to a new variant before it takes traffic.",
    )
    guardrails: Guardrails = Field(
        default_factory=Guardrails, description="What a challenger must not do."
    )


class Log(Section):
    """What is kept of predictions and outcomes."""

    predictions: Literal["durable", "buffered"] = Field(
        "durable",
        description="durable: an answer leaves after it is on disk; buffered: within a second.",
    )
    capture: float = Field(
        1.0, ge=0, le=1, description="Share of requests whose input record is kept."
    )
    mask: tuple[str, ...] = Field((), description="Columns whose values are never kept.")

    @model_validator(mode="after")
    def _once(self) -> Log:
        if len(set(self.mask)) < len(self.mask):
            raise ValueError("mask names a column twice")
        return self
