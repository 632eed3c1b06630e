"""A job's archive and its rounds, from the artifacts bucket."""

from __future__ import annotations

import json
from typing import Any

from ml_control.aws.client import Clients, translated
from ml_control.aws.training.files import ROOT
from ml_control.core.artifact import MAX_BYTES
from ml_control.core.digests import canonical
from ml_control.errors import PlatformFailed
from ml_control.lake import Lake
from ml_control.ports import Round


def archive(clients: Clients, told: dict[str, Any], what: str) -> bytes:
    """The bytes of the job's model.tar.gz. Raises ``PlatformFailed`` for one that is too large, or
    that is not in the artifacts bucket.
    """
    uri = str((told.get("ModelArtifacts") or {}).get("S3ModelArtifacts", ""))
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or bucket != clients.settings.bucket("artifacts") or not key:
        raise PlatformFailed(
            what,
            f"its output {uri or '(none)'} is not in the artifacts bucket",
            "look at the job in the SageMaker console",
        )
    step = "the job's output is gone: restore it from the bucket's versions"
    with translated(uri, step):
        found = clients.client("s3").get_object(Bucket=bucket, Key=key)
        size = int(found["ContentLength"])
        if size > MAX_BYTES:
            found["Body"].close()
            raise PlatformFailed(
                what,
                f"its archive has {size} bytes, more than {MAX_BYTES}",
                "train a smaller model",
            )
        return bytes(found["Body"].read())


def keep_rounds(lake: Lake, job: str, rounds: tuple[Round, ...]) -> None:
    """Keep what a job printed for when its log has expired."""
    body = {"rounds": [[step.index, dict(step.metrics)] for step in rounds]}
    try:
        data = canonical(body)
    except ValueError:  # a metric that is no number has no place in it: the log still tells
        return
    lake.put(_rounds(job), data)


def kept_rounds(lake: Lake, job: str) -> tuple[Round, ...]:
    """What :func:`keep_rounds` kept; nothing when it did not, or it cannot be read."""
    if not lake.exists(_rounds(job)):
        return ()
    try:
        found = json.loads(lake.get(_rounds(job)))["rounds"]
        return tuple(Round(int(index), dict(metrics)) for index, metrics in found)
    except (ValueError, KeyError, TypeError):
        return ()


def _rounds(job: str) -> str:
    return f"{ROOT}/rounds/{job}.json"
