"""Fields that people write from AWS's own documentation, and what to write instead."""

from __future__ import annotations

from collections.abc import Sequence

_OWN_ROLLOUT = "write rollout.strategy: canary, which moves requests between two endpoints"
_OWN_SHADOW = "write rollout.shadow_requests: logged requests are replayed before any traffic"
_OWN_LOG = "write log.capture: the prediction log keeps requests and answers of every endpoint"
_OWN_AB = "write rollout.strategy: ab_test: each variant is an endpoint of its own"
_OWN_DRIFT = "write retrain.on_drift: live requests are compared with the training data"

# By section and field: why not, and the substitute.
_INSTEAD: dict[tuple[str, str], tuple[str, str]] = {
    ("serverless", "capture"): ("a serverless endpoint captures nothing", _OWN_LOG),
    ("serverless", "data_capture"): ("a serverless endpoint captures nothing", _OWN_LOG),
    ("serverless", "rolling"): ("a serverless endpoint has no rolling update", _OWN_ROLLOUT),
    ("serverless", "rollback"): (
        "on a serverless endpoint its effect is not assured",
        "write rollout.guardrails.alarms, or name endpoint.instances",
    ),
    ("serverless", "canary"): ("a serverless endpoint has no instances to divide", _OWN_ROLLOUT),
    ("serverless", "shadow"): ("a serverless endpoint takes no shadow variant", _OWN_SHADOW),
    ("serverless", "variants"): ("a serverless endpoint has one variant", _OWN_AB),
    ("serverless", "monitor"): (
        "Model Monitor does nothing on it, and does not say so",
        _OWN_DRIFT,
    ),
    ("serverless", "vpc"): ("a serverless endpoint joins no VPC", "name endpoint.instances"),
    ("serverless", "subnets"): ("a serverless endpoint joins no VPC", "name endpoint.instances"),
    ("serverless", "gpu"): (
        "a serverless endpoint has no GPU",
        "leave it out: XGBoost predicts on the CPU",
    ),
    ("serverless", "type"): ("a serverless endpoint has no machines", "name endpoint.instances"),
    ("serverless", "count"): ("a serverless endpoint has no machines", "write max_concurrency"),
    ("serverless", "instance_type"): (
        "a serverless endpoint has no machines",
        "name endpoint.instances",
    ),
    ("instances", "rolling"): ("traffic moves blue/green here", "write rollback, with alarms"),
    ("instances", "shadow"): ("the second variant is an endpoint of its own", _OWN_SHADOW),
    ("instances", "variants"): ("the second variant is an endpoint of its own", _OWN_AB),
    ("instances", "monitor"): ("drift is judged from the prediction log", _OWN_DRIFT),
    ("instances", "memory_mb"): ("an instance has the memory of its type", "write type"),
    ("instances", "max_concurrency"): ("an instance answers what it can", "write count"),
    ("rollback", "alarm"): ("alarms are a list", "write alarms: [name]"),
}


def instead_of(path: Sequence[str | int]) -> tuple[str, str] | None:
    """(why not, the substitute) of a field that is not taken; None where nothing is known."""
    if len(path) < 2 or path[0] != "endpoint":
        return None
    return _INSTEAD.get((str(path[-2]), str(path[-1])))
