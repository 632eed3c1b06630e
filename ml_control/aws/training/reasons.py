"""Why a job did not complete, as ours: what AWS and the container say, and the next step."""

from __future__ import annotations

import re
from typing import Any

from ml_control.errors import InvalidSpec, MlControlError, PlatformFailed, Retryable

# The container's own refusals of hyperparameters, wherever they stand in a failure reason.
_REFUSED = re.compile(
    r"((?:Missing required hyperparameter|Extraneous hyperparameter found|Hyperparameter \S+:|"
    r"Require input for parameter 'num_class'|Do not need to setup parameter 'num_class')[^\n\"]*)"
)
_EXIT = re.compile(r",? ?exit code: ?\d+\s*$")
_CAPACITY = re.compile(
    r"CapacityError|InsufficientInstanceCapacity|Unable to provision|insufficient capacity",
    re.IGNORECASE,
)
_OURS = re.compile(r"InternalServerError|Internal server error|We encountered an internal error")
_TRANSIENT = "train again: a new job is started under the next name"


def lacks_capacity(reason: str) -> bool:
    """Whether AWS had no machines, or trouble of its own: the same may work later."""
    return bool(_CAPACITY.search(reason) or _OURS.search(reason))


def interruptions(told: dict[str, Any]) -> int:
    """How often a spot job lost its machines."""
    steps = told.get("SecondaryStatusTransitions") or []
    return sum(step.get("Status") == "Interrupted" for step in steps)


def why(what: str, told: dict[str, Any], log: str) -> MlControlError:
    """The error of a training job that ended without completing."""
    status, step = str(told.get("TrainingJobStatus")), str(told.get("SecondaryStatus", ""))
    reason = str(told.get("FailureReason", "")).strip()
    seconds = (told.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", 0)
    wait = (told.get("StoppingCondition") or {}).get("MaxWaitTimeInSeconds", 0)
    lost = interruptions(told)
    if "MaxRuntimeExceeded" in (step, reason.partition(":")[0]):
        return PlatformFailed(
            what,
            f"MaxRuntimeExceeded: it ran longer than {seconds} s and was ended",
            "raise training.max_runtime, or train on less or on a larger instance",
        )
    if "MaxWaitTimeExceeded" in (step, reason.partition(":")[0]):
        return Retryable(
            what,
            f"MaxWaitTimeExceeded: no spot capacity for long enough within {wait} s{_lost(lost)}",
            f"{_TRANSIENT}; or raise training.sagemaker.max_wait, or set spot: false",
        )
    if status == "Stopped":
        return _stopped(what, lost)
    return _failed(what, reason, log, lost)


def _stopped(what: str, lost: int) -> MlControlError:
    if lost:
        return Retryable(what, f"was stopped{_lost(lost)}", f"{_TRANSIENT}; or set spot: false")
    return Retryable(what, "was ended from outside: SageMaker says Stopped", _TRANSIENT)


def _failed(what: str, reason: str, log: str, lost: int) -> MlControlError:
    if found := _REFUSED.search(reason):
        words = _EXIT.sub("", found[1]).strip()
        return InvalidSpec(what, words, "correct training.hyperparameters")
    if "ResourceLimitExceeded" in reason:
        return PlatformFailed(
            what,
            reason,
            "ask for a higher quota in Service Quotas, or name another instance type",
        )
    if _CAPACITY.search(reason):
        return Retryable(
            what, reason, f"{_TRANSIENT}; or name another training.sagemaker.instance_type"
        )
    if _OURS.search(reason):
        return Retryable(what, f"{reason}{_lost(lost)}", _TRANSIENT)
    said = reason or "failed, and AWS gives no reason"
    ends = f"; its log ends: {log}" if log else ""
    return PlatformFailed(what, f"{said}{_lost(lost)}{ends}", "correct it, then train again")


def _lost(times: int) -> str:
    return f", after {times} spot interruption{'s' if times > 1 else ''}" if times else ""
