"""What an ``endpoint`` section means in SageMaker's own terms, and what its limits are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ml_control.spec import Endpoint, Instances, Serverless

VARIANT = "AllTraffic"  # for ever: SageMaker refuses an update under another variant name
SERVERLESS_BYTES = 4 << 20  # of one request
INSTANCE_BYTES = 6 << 20
ANSWER_SECONDS = 60.0  # SageMaker gives up a request after so long
MEMORY_MB = range(1024, 6145, 1024)
CONCURRENCY = range(1, 201)
LONGEST_BAKE = 3600.0
_LOCAL_SECONDS = 120.0
_SERVERLESS_SECONDS = 900.0
_INSTANCE_SECONDS = 1800.0  # a machine, the image, and eight minutes of health checks
_SHORTEST_DEPLOYMENT = 600  # of MaximumExecutionTimeoutInSeconds
_LONGEST_DEPLOYMENT = 28_800
# Families with a disk of their own, encrypted by the machine: a KMS key is refused for them.
_OWN_DISK = re.compile(r"g[5-7]e?|p4de?|p5e?n?|p6\S*|trn\S*|\w*\d[a-z]*dn?")


@dataclass(frozen=True)
class Hosting:
    """An endpoint as SageMaker is asked for it.

    ``variant`` goes into the ProductionVariant beside its model, ``deployment`` is the
    DeploymentConfig of an update, ``capture`` the percentage of requests that is copied.
    """

    variant: dict[str, Any]
    deployment: dict[str, Any] | None
    capture: int
    volume_key: bool  # whether its volume takes a KMS key
    request_bytes: int
    start_seconds: float


def hosting_of(endpoint: Endpoint | None) -> Hosting:
    """The terms of an ``endpoint`` section: serverless, unless it names instances."""
    hosting = (endpoint or Endpoint()).hosting
    if isinstance(hosting, Serverless):
        size = {
            "MemorySizeInMB": hosting.memory_mb,
            "MaxConcurrency": hosting.max_concurrency,
        }
        return Hosting(
            variant={"VariantName": VARIANT, "ServerlessConfig": size},
            deployment=None,
            capture=0,
            volume_key=False,
            request_bytes=SERVERLESS_BYTES,
            start_seconds=_SERVERLESS_SECONDS,
        )
    variant = {
        "VariantName": VARIANT,
        "InstanceType": hosting.type,
        "InitialInstanceCount": hosting.count,
        "InitialVariantWeight": 1.0,
    }
    watched = hosting.rollback.bake if hosting.rollback else 0.0
    return Hosting(
        variant=variant,
        deployment=_deployment(hosting),
        capture=round(100 * hosting.capture),
        volume_key=not has_own_disk(hosting.type),
        request_bytes=INSTANCE_BYTES,
        start_seconds=_INSTANCE_SECONDS + 2 * watched,
    )


def start_seconds(platform: str, endpoint: Endpoint | None) -> float:
    """How long a deployment may take on a platform before it has failed."""
    return _LOCAL_SECONDS if platform == "local" else hosting_of(endpoint).start_seconds


def family(instance_type: str) -> str:
    """``g4dn`` of ``ml.g4dn.xlarge``."""
    return instance_type.split(".")[1]


def has_gpu(instance_type: str) -> bool:
    """Whether machines of this type have GPUs that XGBoost can use."""
    return family(instance_type)[0] in "gp"


def has_own_disk(instance_type: str) -> bool:
    """Whether machines of this type have a disk of their own, which takes no KMS key."""
    return _OWN_DISK.fullmatch(family(instance_type)) is not None


def _deployment(instances: Instances) -> dict[str, Any] | None:
    """Blue/green with automatic rollback; None without alarms, which would make it do nothing."""
    rollback = instances.rollback
    if rollback is None or not rollback.alarms:
        return None
    routing: dict[str, Any] = {
        "Type": "ALL_AT_ONCE",
        "WaitIntervalInSeconds": round(rollback.bake),
    }
    if rollback.canary:
        percent = max(1, round(100 * rollback.canary))
        routing |= {
            "Type": "CANARY",
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": percent},
        }
    longest = round(_INSTANCE_SECONDS + 2 * rollback.bake)
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": 0,
            "MaximumExecutionTimeoutInSeconds": min(
                max(longest, _SHORTEST_DEPLOYMENT), _LONGEST_DEPLOYMENT
            ),
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in rollback.alarms]},
    }
