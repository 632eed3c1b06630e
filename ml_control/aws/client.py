"""boto3 clients as every adapter uses them, and the one place where AWS's errors become ours."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ml_control.errors import Conflict, InvalidSpec, MlControlError, PlatformFailed, Retryable
from ml_control.settings import AwsSettings

_POOL = 32
_BY_ITEM = frozenset({"dynamodb", "kinesis", "s3", "sagemaker-runtime", "sqs"})
_LONGEST = 1024  # characters of AWS's own words in a reason

_BUSY = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "SlowDown",
        "PriorRequestNotComplete",
        "TransactionInProgressException",
        "KMSThrottlingException",
        "KMSThrottling",
        "KmsThrottled",
        "OverLimit",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "InternalFailure",
        "InternalServerError",
        "InternalError",
        "InternalServerException",
        "InternalDependencyException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ModelNotReadyException",
    }
)
_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
)
_UNKNOWN_CALLER = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
        "KMSAccessDeniedException",
        "KMSAccessDenied",
        "KmsAccessDenied",
        "NotAuthorized",
        "403",
    }
)
_ABSENT = frozenset(
    {
        "ResourceNotFoundException",
        "ResourceNotFound",
        "NoSuchBucket",
        "QueueDoesNotExist",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NotFound",
        "NotFoundException",
        "KMSNotFoundException",
    }
)
_MOVED = frozenset(
    {"ConditionalCheckFailedException", "PreconditionFailed", "ConditionalRequestConflict"}
)
_SKEWED = ("Signature expired", "Signature not yet current", "request time and the current time")
_CAPACITY = ("CapacityError", "InsufficientInstanceCapacity", "Unable to provision requested")
_SECRETS = (
    re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(r"(?i)(?<=x-amz-security-token=)[^&\s\"']+"),
    re.compile(r"(?i)(?<=x-amz-signature=)[^&\s\"']+"),
    re.compile(r"(?i)(?<=x-amz-credential=)[^&\s\"']+"),
    re.compile(r"(?i)(?<=signature=)[a-f0-9]{16,}"),
    re.compile(r"(?i)(?<=aws_secret_access_key=)\S+"),
    re.compile(r"(?i)(?<=aws_session_token=)\S+"),
)


class Clients:
    """boto3 clients by service, each made once; they may be used by many threads.

    Credentials come from the standard chain; only region, profile, addresses, timeouts and retries
    are ours. A request is tried ``max_attempts`` times: in botocore's adaptive mode, which slows a
    throttled client down, where AWS limits the calls of an account; in its standard mode where each
    item or record has a limit of its own, for there one busy item would slow down all others.
    """

    def __init__(self, settings: AwsSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._session: Any = None
        self._made: dict[tuple[str, int, float], Any] = {}

    def __repr__(self) -> str:
        return f"Clients({self.settings.region or 'default region'})"

    def client(self, service: str, *, attempts: int = 0, read_timeout: float = 0.0) -> Any:
        """The client of a service. ``attempts`` and ``read_timeout`` (seconds) override the usual.

        Raises ``InvalidSpec`` without the extra ``aws``, a region, or the named profile.
        """
        settings = self.settings
        key = (
            service,
            attempts or settings.max_attempts,
            read_timeout or settings.read_timeout,
        )
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(*key)
            return self._made[key]

    @property
    def region(self) -> str:
        """The region that requests go to. Raises ``InvalidSpec`` when there is none."""
        with self._lock:
            return self._region()

    @property
    def session(self) -> Any:
        """The boto3 session behind the clients, for credentials. Raises as :meth:`client` does."""
        with self._lock:
            return self._opened()

    def account(self) -> str:
        """The account id of the credentials. Raises our errors."""
        sts = self.client("sts")
        with translated("AWS credentials"):
            return str(sts.get_caller_identity()["Account"])

    def _region(self) -> str:
        region = self.settings.region or self._opened().region_name
        if not region:
            raise InvalidSpec(
                "setting aws.region",
                "no region is set",
                "set region under [aws] in ml-control.toml, or AWS_REGION",
            )
        return str(region)

    def _opened(self) -> Any:
        if self._session is None:
            try:
                import boto3
                from botocore.exceptions import ProfileNotFound
            except ImportError as error:
                raise InvalidSpec(
                    "setting platform",
                    "platform aws needs the extra 'aws', which is not installed",
                    "install it: pip install 'ml-control[aws]'",
                ) from error
            settings = self.settings
            try:
                self._session = boto3.Session(
                    profile_name=settings.profile or None, region_name=settings.region or None
                )
            except ProfileNotFound as error:
                raise InvalidSpec(
                    "setting aws.profile", str(error), "name a profile of ~/.aws/config"
                ) from error
        return self._session

    def _make(self, service: str, attempts: int, read_timeout: float) -> Any:
        session, region = self._opened(), self._region()
        from botocore.config import Config

        settings = self.settings
        config = Config(
            connect_timeout=settings.connect_timeout,
            read_timeout=read_timeout,
            retries={
                "mode": "standard" if service in _BY_ITEM else "adaptive",
                "total_max_attempts": attempts,
            },
            max_pool_connections=_POOL,
            tcp_keepalive=True,
            user_agent_extra="ml-control",
        )
        return session.client(
            service,
            region_name=region,
            endpoint_url=settings.endpoint_urls.get(service),
            config=config,
        )


@contextmanager
def translated(object: str, next: str = "") -> Iterator[None]:
    """AWS's errors of this block as ours, about this object; see :func:`translate`."""
    try:
        yield
    except MlControlError:
        raise
    except Exception as error:
        known = translate(error, object, next)
        if known is None:
            raise
        raise known from error


def translate(error: Exception, object: str, next: str = "") -> MlControlError | None:
    """What an exception of botocore says about an object; None if it is not botocore's.

    ``Retryable``: throttling, AWS's own faults, capacity, connections, expired credentials.
    ``Conflict``: a condition did not hold. Everything else is ``PlatformFailed`` with AWS's words;
    ``code`` and ``operation`` are in the detail. ``next`` is said where there is no better step.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )
    from botocore.exceptions import ConnectionError as NotConnected

    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return PlatformFailed(
            object, redacted(str(error)), "give credentials: a role, 'aws sso login', or a profile"
        )
    if isinstance(error, (NotConnected, HTTPClientError)):
        return Retryable(
            object, f"AWS could not be reached: {redacted(str(error))}", "try again", code="network"
        )
    if isinstance(error, ClientError):
        return _answered(error, object, next)
    if isinstance(error, BotoCoreError):
        # Among these: a credential process or SSO session that gave nothing.
        return PlatformFailed(
            object, redacted(str(error)), next or "check credentials and settings, then retry"
        )
    return None


def code_of(error: Exception) -> str:
    """AWS's error code of a botocore exception, or nothing."""
    response = getattr(error, "response", None)
    told = response.get("Error", {}) if isinstance(response, dict) else {}
    return str(told.get("Code", ""))


def _answered(error: Any, object: str, next: str) -> MlControlError:
    told = error.response.get("Error", {})
    code, words = str(told.get("Code", "")), redacted(str(told.get("Message", "")))[:_LONGEST]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
    detail = {"code": code, "operation": str(error.operation_name)}
    said = f"{error.operation_name}: {code}: {words}"
    if code in _MOVED:
        return Conflict(object, said, next or "read it again, then decide anew", **detail)
    if code in _EXPIRED:
        return Retryable(object, said, "renew the credentials, then do it again", **detail)
    if code in _BUSY or status >= 500 or status == 429:
        return Retryable(object, said, "wait, then do it again", **detail)
    if any(mark in words for mark in _CAPACITY):
        return Retryable(object, said, "wait, or name another instance type", **detail)
    if any(mark in words for mark in _SKEWED):
        step = "set this machine's clock, then do it again"
        return PlatformFailed(object, said, step, **detail)
    if code in _UNKNOWN_CALLER:
        return PlatformFailed(object, said, "give valid credentials, then do it again", **detail)
    if code in _DENIED:
        step = f"allow {error.operation_name} to this role (docs/aws.md lists what each part needs)"
        return PlatformFailed(object, said, step, **detail)
    if code == "ResourceLimitExceeded":
        step = "ask for a higher quota in Service Quotas, or name another instance type"
        return PlatformFailed(object, said, step, **detail)
    if code in _ABSENT:
        return PlatformFailed(
            object, said, next or "check the names under [aws] in ml-control.toml", **detail
        )
    return PlatformFailed(object, said, next or "correct what AWS refuses, then retry", **detail)


def redacted(text: str) -> str:
    """Text without access keys, session tokens and signatures."""
    for pattern in _SECRETS:
        text = pattern.sub("[redacted]", text)
    return text
