"""Why an endpoint did not come up, from SageMaker's own words."""

from __future__ import annotations

from ml_control.errors import MlControlError, PlatformFailed, Retryable

# (a text of SageMaker's, whether it may work later without a change, the next step)
_KNOWN = (
    ("CapacityError", True, "wait, or name another endpoint.instances.type"),
    ("InsufficientInstanceCapacity", True, "wait, or name another endpoint.instances.type"),
    ("Unable to provision requested", True, "wait, or name another endpoint.instances.type"),
    (
        "account-level service limit",
        False,
        "ask for a higher quota in Service Quotas, or stop an endpoint that is not needed",
    ),
    (
        "ResourceLimitExceeded",
        False,
        "ask for a higher quota in Service Quotas, or stop an endpoint that is not needed",
    ),
    (
        "did not pass the ping health check",
        False,
        "prove the archive with 'ml-control verify'; its log says what it could not load",
    ),
    (
        "Failed to extract model data archive",
        False,
        "the archive is no whole gzip tar: prove it with 'ml-control verify'",
    ),
    (
        "allotted 180 second timeout",
        False,
        "raise endpoint.serverless.memory_mb, or name endpoint.instances",
    ),
    (
        "Failed to download model data",
        False,
        "let the role aws.role_arn read the artifacts bucket and its key",
    ),
    ("is not authorized", False, "give the role aws.role_arn what docs/aws.md lists for endpoints"),
    ("larm", False, "see the alarms of endpoint.instances.rollback, then deploy again"),
)
_ELSE = "see its log group in CloudWatch, then deploy again"


def failure(object: str, reason: str, *, what: str, log: str, model_version: str) -> MlControlError:
    """The typed error of a deployment that failed; ``Retryable`` where only capacity lacks.

    ``what`` tells what became of the endpoint, ``log`` how the server's log ends.
    """
    words = reason or "SageMaker gives no reason"
    later, step = next(
        ((later, step) for text, later, step in _KNOWN if text in words), (False, _ELSE)
    )
    said = f"{words} ({what})" + (f"; its log ends: {log}" if log else "; it wrote no log")
    kind = Retryable if later else PlatformFailed
    return kind(object, said, step, failure_reason=reason, model_version=model_version)
