"""The lake in buckets: one for each area, by the credentials that boto3 finds."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ml_control.aws.client import Clients, translated
from ml_control.errors import InvalidSpec, PlatformFailed
from ml_control.lake import AREAS, Area, Lake

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CREDENTIALS_SECONDS = 300  # then the chain is asked again, which renews what is about to expire
_WHOLE_SECONDS = 3600  # of one request: a large object takes long, each of its reads does not
_WAIT_SECONDS = 180  # for all tries of one request
_checked: set[tuple[str, str]] = set()
_lock = threading.Lock()


def open_lake(clients: Clients) -> Lake:
    """The lake in the buckets of the settings.

    Raises ``InvalidSpec`` when the raw bucket does not keep versions (asked once a process), since
    an object that is replaced would be lost; ``PlatformFailed`` without credentials.
    """
    settings = clients.settings
    buckets = {area: settings.bucket(area) for area in AREAS}
    _require_versions(clients, buckets["raw"])
    stores: dict[Area, ObjectStore] = {}
    for area in AREAS:
        stores[area] = _store(clients, buckets[area])
    return Lake(stores, buckets=buckets)


def _store(clients: Clients, bucket: str) -> ObjectStore:
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    settings, session = clients.settings, clients.session
    options: dict[str, Any] = {"config": {}}
    if url := _endpoint(clients):
        options["endpoint"] = url
    if settings.kms_key:
        options["config"]["aws_server_side_encryption"] = "aws:kms"
        options["config"]["aws_sse_kms_key_id"] = settings.kms_key
    try:
        provider = Boto3CredentialProvider(session, ttl=timedelta(seconds=_CREDENTIALS_SECONDS))
    except ValueError as error:
        raise PlatformFailed(
            f"bucket {bucket}",
            "no credentials were found",
            "give credentials: a role, 'aws sso login', or a profile",
        ) from error
    return S3Store(
        bucket,
        region=clients.region,
        credential_provider=provider,
        virtual_hosted_style_request=not url,
        client_options={
            "allow_http": url.startswith("http://"),
            "connect_timeout": timedelta(seconds=settings.connect_timeout),
            "read_timeout": timedelta(seconds=settings.read_timeout),
            "timeout": timedelta(seconds=_WHOLE_SECONDS),
            "user_agent": "ml-control",
        },
        retry_config={
            "max_retries": settings.max_attempts - 1,
            "retry_timeout": timedelta(seconds=_WAIT_SECONDS),
        },
        **options,
    )


def _endpoint(clients: Clients) -> str:
    """Another address of S3, as boto3 would take it; none for AWS's own."""
    own = clients.settings.endpoint_urls.get("s3", "")
    return own or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _require_versions(clients: Clients, bucket: str) -> None:
    seen = (bucket, _endpoint(clients))
    with _lock:
        if seen in _checked:
            return
    s3 = clients.client("s3")
    with translated(f"bucket {bucket}"):
        status = s3.get_bucket_versioning(Bucket=bucket).get("Status", "")
    if status != "Enabled":
        raise InvalidSpec(
            f"bucket {bucket}",
            f"does not keep versions of its objects (versioning: {status or 'never enabled'})",
            f"enable it: aws s3api put-bucket-versioning --bucket {bucket} "
            "--versioning-configuration Status=Enabled",
        )
    with _lock:
        _checked.add(seen)
