"""S3 as the fake reads and writes it, with errors in SageMaker's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

_CREDENTIALS = {"aws_access_key_id": "fake", "aws_secret_access_key": "fake"}


class Missing(Exception):
    """An object or prefix that is not there; the text names it."""


class Storage:
    """The S3 that jobs read from and write to."""

    def __init__(self, s3: str | Mapping[str, Any], region: str) -> None:
        """``s3`` is an endpoint URL, or the keyword arguments of ``boto3.client("s3", ...)``."""
        given = {"endpoint_url": s3, **_CREDENTIALS} if isinstance(s3, str) else dict(s3)
        self.region = region
        self._arguments = given

    @cached_property
    def client(self) -> Any:
        """The boto3 client, safe for threads; to be made before there are several."""
        import boto3

        return boto3.client("s3", **{"region_name": self.region, **self._arguments})

    def keys(self, uri: str) -> list[str]:
        """URIs of the objects below a prefix, in order; folder marks are left out."""
        bucket, prefix = split(uri)
        with _missing(uri):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix
            )
            return [
                f"s3://{bucket}/{item['Key']}"
                for page in pages
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/")
            ]

    def manifest(self, uri: str) -> list[str]:
        """The objects that a manifest file names. Raises ``Missing``, also for one that is none."""
        try:
            prefix, *rest = json.loads(self.read(uri))
            return [prefix["prefix"] + name for name in rest]
        except (ValueError, KeyError, TypeError) as error:
            raise Missing(f"{uri} is not a manifest file: {error}") from error

    def manifest_prefix(self, uri: str) -> str:
        """What every object of a manifest begins with. Raises ``Missing``, ``ValueError``."""
        return str(json.loads(self.read(uri))[0]["prefix"])

    def exists(self, uri: str) -> bool:
        """Whether exactly this object is there."""
        bucket, key = split(uri)
        try:
            with _missing(uri):
                self.client.head_object(Bucket=bucket, Key=key)
        except Missing:
            return False
        return True

    def read(self, uri: str) -> bytes:
        """An object. Raises ``Missing``."""
        bucket, key = split(uri)
        with _missing(uri):
            body: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def write(self, uri: str, data: bytes | Path, kms_key: str = "") -> None:
        """Put an object, encrypted with a key where one is given. Raises ``Missing``."""
        bucket, key = split(uri)
        more = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        with _missing(uri):
            if isinstance(data, Path):
                with data.open("rb") as body:
                    self.client.put_object(Bucket=bucket, Key=key, Body=body, **more)
            else:
                self.client.put_object(Bucket=bucket, Key=key, Body=data, **more)


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI (also of its https form)."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


class _missing:  # noqa: N801 - reads as a statement
    """S3's refusals of this block as ``Missing``."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from botocore.exceptions import ClientError, ParamValidationError

        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
            raise Missing(f"{self._uri}: {code}: {error.response['Error']['Message']}") from error
        if isinstance(error, ParamValidationError):
            raise Missing(f"{self._uri}: {error}") from error
