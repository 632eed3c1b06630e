"""What a model must fulfil before it may be deployed."""

from __future__ import annotations

from pydantic import Field, model_validator

from ml_control.spec.base import Duration, Section


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


class Approval(Section):
    """Whether a person must approve a proven model before it takes any traffic."""

    manual: bool = Field(False, description="Wait for 'ml-control approve' after the gates.")
    expires: Duration = Field(
        259200.0,
        gt=0,
        description="A proven model that nobody approved for so long is not deployed any more.",
    )


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
    approval: Approval = Field(
        default_factory=Approval, description="Whether a person must approve a proven model."
    )
