"""What a model is trained and served on where SageMaker does it. On one machine it is ignored."""

from __future__ import annotations

from pydantic import Field, model_validator

from ml_control.spec.base import Duration, Section


class SageMakerTraining(Section):
    """The training job's machines, on ``platform: aws``."""

    instance_type: str = Field(
        "ml.m5.xlarge",
        pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$",
        description="SageMaker instance type.",
    )
    instance_count: int = Field(
        1,
        ge=1,
        le=20,
        description="Instances; several train one model together, each on its share of the files.",
    )
    volume_gb: int = Field(30, ge=1, le=16_384, description="Disk of each instance.")
    spot: bool = Field(
        False, description="Spare capacity: cheaper, and interrupted when it is wanted elsewhere."
    )
    max_wait: Duration = Field(
        7200.0,
        gt=0,
        description="Longest wait for spot capacity, the training included.",
    )
    gpu: bool = Field(False, description="Train on the GPUs of the instances.")


class Serverless(Section):
    """An endpoint that SageMaker scales by itself, to nothing when nobody asks."""

    memory_mb: int = Field(2048, description="Memory: 1024 to 6144 in steps of 1024.")
    max_concurrency: int = Field(5, description="Requests answered at once: 1 to 200.")


class AutoRollback(Section):
    """How the traffic of one endpoint moves to its new instances, and what takes it back."""

    alarms: tuple[str, ...] = Field(
        (), description="CloudWatch alarms that take a deployment back, 1 to 10."
    )
    canary: float = Field(
        0.0, ge=0, lt=1, description="Share of the new instances that takes traffic first; 0: all."
    )
    bake: Duration = Field(300.0, ge=0, description="How long the alarms are watched.")


class Instances(Section):
    """An endpoint on machines of its own."""

    type: str = Field(
        "ml.m5.large", pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$", description="Instance type."
    )
    count: int = Field(1, ge=1, le=100, description="Instances.")
    capture: float = Field(
        0.0, ge=0, le=1, description="Share of requests that SageMaker copies to the logs bucket."
    )
    rollback: AutoRollback | None = Field(
        None, description="Blue/green deployment that alarms take back; all at once if unset."
    )


class Endpoint(Section):
    """What serves a variant, on ``platform: aws``: serverless unless instances are named."""

    serverless: Serverless | None = Field(None, description="Scaled by SageMaker.")
    instances: Instances | None = Field(None, description="Machines of its own.")

    @model_validator(mode="after")
    def _one(self) -> Endpoint:
        if self.serverless is not None and self.instances is not None:
            raise ValueError("name serverless or instances, not both")
        return self

    @property
    def hosting(self) -> Serverless | Instances:
        """The one of the two that holds."""
        return self.instances or self.serverless or Serverless()
