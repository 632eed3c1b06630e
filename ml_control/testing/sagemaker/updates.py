"""What an update of an endpoint may change, and how it is brought about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_control.testing.sagemaker.configs import is_serverless
from ml_control.testing.sagemaker.refused import invalid
from ml_control.testing.sagemaker.state import Record

_KEPT = {"DesiredWeight": "CurrentWeight", "DesiredInstanceCount": "CurrentInstanceCount"}


@dataclass(frozen=True)
class Change:
    """One update: the new configuration, how traffic moves, what of the old variants stays."""

    config: Record
    deployment: Record | None
    kept: tuple[str, ...]

    @property
    def alarms(self) -> list[str]:
        """The alarms that take it back. Without any, nothing does."""
        found = (self.deployment or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
        return [alarm["AlarmName"] for alarm in found]

    @property
    def bake(self) -> float:
        """How long the alarms are watched once the new servers answer, in AWS's seconds."""
        policy = (self.deployment or {}).get("BlueGreenUpdatePolicy", {})
        routing = policy.get("TrafficRoutingConfiguration", {})
        step = routing.get("LinearStepSize", {})
        rounds = 1
        if routing.get("Type") == "LINEAR" and step.get("Type") == "CAPACITY_PERCENT":
            rounds = -(-100 // int(step["Value"]))
        seconds = routing.get("WaitIntervalInSeconds", 0) * rounds
        rolling = (self.deployment or {}).get("RollingUpdatePolicy", {})
        return float(
            seconds
            + policy.get("TerminationWaitInSeconds", 0)
            + rolling.get("WaitIntervalInSeconds", 0)
        )

    def keep(self, new: dict[str, Record], old: Mapping[str, Record]) -> dict[str, Record]:
        """The new variants with what ``RetainAllVariantProperties`` keeps of the old."""
        for name, variant in new.items():
            for member in self.kept:
                if name in old and "CurrentServerlessConfig" not in variant:
                    variant[member] = variant[_KEPT[member]] = old[name][member]
        return new


def kept(request: Mapping[str, Any], record: Record) -> tuple[str, ...]:
    """The members of a variant that survive the update; none when it comes from serverless."""
    if not request.get("RetainAllVariantProperties") or is_serverless(record["_config"]):
        return ()
    dropped = {
        item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties", [])
    }
    return tuple(member for member in _KEPT if member not in dropped)


def choose_deployment(request: Mapping[str, Any], record: Record) -> Record | None:
    """The deployment configuration that an update uses."""
    if request.get("RetainDeploymentConfig") and "DeploymentConfig" not in request:
        found: Record | None = record.get("LastDeploymentConfig")
        return found
    return request.get("DeploymentConfig")


def check_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise ``Refused`` for a change that AWS does not make."""
    if is_serverless(new) and not is_serverless(old):
        raise invalid(
            "Converting an instance-based endpoint to a serverless endpoint is not supported."
        )
    names = [
        sorted(variant["VariantName"] for variant in config["ProductionVariants"])
        for config in (old, new)
    ]
    if names[0] != names[1]:
        raise invalid(
            f"The production variants of the new endpoint configuration {names[1]} must have the "
            f"names of the old ones {names[0]}."
        )


def check_deployment(deployment: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """Raise ``Refused`` for a deployment configuration that does not fit the configuration."""
    if deployment is None:
        return
    policies = [
        name for name in ("BlueGreenUpdatePolicy", "RollingUpdatePolicy") if name in deployment
    ]
    if len(policies) > 1:
        raise invalid("Specify BlueGreenUpdatePolicy or RollingUpdatePolicy, not both.")
    if "RollingUpdatePolicy" in deployment:
        if is_serverless(config):
            raise invalid("Rolling deployments are not supported for serverless endpoints.")
        if len(config["ProductionVariants"]) > 1:
            raise invalid("Rolling deployments are not supported for multi-variant endpoints.")
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    for kind, member in (("CANARY", "CanarySize"), ("LINEAR", "LinearStepSize")):
        if (routing.get("Type") == kind) != (member in routing):
            raise invalid(f"{member} must be specified exactly with traffic routing type {kind}.")
    canary = routing.get("CanarySize", routing.get("LinearStepSize", {}))
    if canary.get("Type") == "CAPACITY_PERCENT" and canary["Value"] > 50:
        raise invalid("The size of a canary or a linear step must be at most 50 percent.")
