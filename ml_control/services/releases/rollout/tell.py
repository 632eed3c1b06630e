"""What people are told of a rollout, from what is true: also after a crash before it was said."""

from __future__ import annotations

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout
from ml_control.core.rollout import Seen
from ml_control.platform import Platform
from ml_control.services.alerts import clear_alerts, raise_alert


def tell(platform: Platform, pipeline: Pipeline, rollout: Rollout, seen: Seen) -> None:
    """Raise and clear the alerts of a rollout: halted, rolled back, approval pending."""
    name = pipeline.name
    if rollout.state == "halted":
        raise_alert(
            platform,
            name,
            "rollout-halted",
            f"rollout {rollout.id}",
            f"halted, the traffic stays as it is: {rollout.halted_because}",
            f"put it right, then 'ml-control resume {name}', or decide: promote, rollback",
        )
    if rollout.ended == "rolled_back" and rollout.rolled_back:
        raise_alert(
            platform,
            name,
            "rolled-back",
            f"rollout {rollout.id}",
            f"model {rollout.rolled_back[-1][:12]} was rolled back; "
            f"model {(rollout.champion or 'none')[:12]} serves",
            f"see 'ml-control history {name}'; over when another model is tried",
        )
    candidate = seen.candidate
    waits = candidate is not None and candidate.standing == "proven"
    if candidate is not None and waits and candidate.consent == "pending":
        raise_alert(
            platform,
            name,
            "approval",
            f"model {candidate.version}",
            "passed every gate and waits for a person's approval",
            f"'ml-control approve {name}' or 'ml-control reject {name}'",
        )
    elif candidate is None or candidate.consent != "pending":
        clear_alerts(platform, name, "approval")
