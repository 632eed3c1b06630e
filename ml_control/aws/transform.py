"""Scoring as batch transform: a file of rows through a proven archive, in the order of the rows.

    artifacts/_training/scoring/<job>/model.tar.gz   the proven bytes
    artifacts/_training/scoring/<job>/rows.csv       the golden rows, then the rows to score
    artifacts/_training/scored/<job>/rows.csv.out    a line of answers for each

The first two, and SageMaker's model of them, are one job's own and go when it has ended.

What a transform job loads lies in a bucket, so the digest alone says little of what it ran: every
job answers the golden records first, and only a job that answers them as training did counts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.aws.client import Clients
from ml_control.aws.images import image_uri
from ml_control.aws.training import claims, requests
from ml_control.aws.training.files import ROOT, address
from ml_control.aws.training.reasons import lacks_capacity
from ml_control.aws.training.waiting import Pace, wait
from ml_control.core.digests import digest_of, sha256
from ml_control.core.tolerance import allowed, scale_of
from ml_control.errors import MlControlError, NotProven, PlatformFailed, Retryable
from ml_control.lake import Lake, file_digest
from ml_control.ports import ScoringJob

if TYPE_CHECKING:
    import numpy as np

_PAYLOAD_MB = 6  # what the container takes in one request
_CHUNK = 4 << 20
_TRANSIENT = "score again: a new job is started under the next name"


class SageMakerTransform:
    """Implements :class:`ml_control.ports.BatchScorer` with SageMaker's batch transform."""

    def __init__(self, clients: Clients, lake: Lake, pace: Pace | None = None) -> None:
        self._clients, self._lake = clients, lake
        self._pace = pace or Pace()

    def predict(self, job: ScoringJob) -> np.ndarray:
        """Float32 predictions in the order of the rows: (n,) or (n, classes); see the port."""
        what = f"scoring job {job.name}"
        claims.check_name(job.name, "scoring job")
        kind = _Transform(self._clients, self._lake, job)
        found = claims.claim(kind, job.name, kind.mark, what)
        told = wait(lambda: kind.describe(found.name), kind.status, lambda: None, what, self._pace)
        kind.tidy(found.name, str(told.get("ModelName") or ""))
        if kind.status(told) != "Completed":
            raise _why(what, told)
        return self._answers(job, found.name, what)  # they stay for a replay

    def _answers(self, job: ScoringJob, name: str, what: str) -> np.ndarray:
        import numpy as np

        key = f"{ROOT}/scored/{name}/rows.csv.out"
        text = b"".join(self._lake.stream(key))
        try:
            rows = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float64, ndmin=2)
        except ValueError as error:
            raise PlatformFailed(
                what, f"its output cannot be read: {error}", "look at it in the artifacts bucket"
            ) from error
        if len(rows) != len(job.golden) + job.count:
            raise PlatformFailed(
                what,
                f"it answered {len(rows)} of {len(job.golden) + job.count} rows",
                "look at its output in the artifacts bucket, then score again",
            )
        head, answers = rows[: len(job.golden)], rows[len(job.golden) :]
        _prove(head.tolist(), job, what)
        found = answers.astype(np.float32)
        return found.reshape(-1) if found.shape[1] == 1 else found


class _Transform:
    """Transform jobs, as :mod:`claims` sees them."""

    longest = 63

    def __init__(self, clients: Clients, lake: Lake, job: ScoringJob) -> None:
        self._clients, self._lake, self._job = clients, lake, job
        self._api = clients.client("sagemaker")
        self._digest = sha256(job.archive)
        request = digest_of([job.container, self._digest, file_digest(job.rows), [*job.golden]])
        self.mark = claims.Mark(claims.owner(clients), request)

    def describe(self, name: str) -> dict[str, Any] | None:
        return claims.absent_as_none(
            self._api.describe_transform_job, f"transform job {name}", TransformJobName=name
        )

    def status(self, told: dict[str, Any]) -> str:
        return str(told.get("TransformJobStatus"))

    def environment(self, told: dict[str, Any]) -> dict[str, str]:
        return dict(told.get("Environment") or {})

    def create(self, name: str) -> bool:
        model = self._model(name)
        try:
            return self._started(name, model)
        except PlatformFailed:
            with suppress(MlControlError):
                if self.describe(name) is None:  # else it is another caller's, who needs them
                    self.tidy(name, model)
            raise

    def tidy(self, name: str, model: str) -> None:
        """Remove what only the job needed. What cannot be removed is left."""
        with suppress(MlControlError):
            if model:
                claims.absent_as_none(self._api.delete_model, f"model {model}", ModelName=model)
            for file in ("rows.csv", "model.tar.gz"):
                self._lake.delete(f"{ROOT}/scoring/{name}/{file}")

    def _started(self, name: str, model: str) -> bool:
        job, settings = self._job, self._clients.settings
        what = f"scoring job {job.name}"
        source = f"{ROOT}/scoring/{name}/rows.csv"
        self._lake.put_stream(source, _rows(job))
        key = {"KmsKeyId": settings.kms_key} if settings.kms_key else {}
        volume = {"VolumeKmsKeyId": settings.kms_key} if settings.kms_key else {}
        return claims.unless_taken(
            self._api.create_transform_job,
            what,
            "correct what SageMaker refuses, then score again",
            TransformJobName=name,
            ModelName=model,
            Environment=self.mark.environment,
            BatchStrategy="MultiRecord",
            MaxPayloadInMB=_PAYLOAD_MB,
            TransformInput={
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": address(settings, source),
                    }
                },
                "ContentType": "text/csv",
                "CompressionType": "None",
                "SplitType": "Line",
            },
            TransformOutput={
                "S3OutputPath": address(settings, f"{ROOT}/scored/{name}"),
                "Accept": "text/csv",
                "AssembleWith": "Line",
                **key,
            },
            TransformResources={
                "InstanceType": job.machines.instance_type,
                "InstanceCount": 1,  # one file has one order
                **volume,
            },
            Tags=requests.tags(settings, **{"ml-control-job": job.name}),
        )

    def _model(self, job: str) -> str:
        """The SageMaker model of exactly these bytes, for one job."""
        settings, what = self._clients.settings, f"scoring job {self._job.name}"
        key = f"{ROOT}/scoring/{job}/model.tar.gz"
        self._lake.put(key, self._job.archive)
        place = address(settings, key)
        image = image_uri(self._job.container, self._clients.region)
        settled = [image, place, requests.role(settings), list(settings.subnets)]
        name = f"{settings.project}-scoring-{digest_of(settled)[:16]}"
        claims.unless_taken(
            self._api.create_model,
            what,
            "correct what SageMaker refuses, then score again",
            ModelName=name,
            PrimaryContainer={"Image": image, "ModelDataUrl": place},
            ExecutionRoleArn=requests.role(settings),
            EnableNetworkIsolation=True,
            Tags=requests.tags(settings),
            **({"VpcConfig": requests.vpc(settings)} if settings.subnets else {}),
        )
        return name


def _rows(job: ScoringJob) -> Iterator[bytes]:
    yield "".join(f"{row}\n" for row in job.golden).encode()
    yield from _chunks(job.rows)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _prove(observed: list[list[float]], job: ScoringJob, what: str) -> None:
    """Raise ``NotProven`` when the golden rows are not answered as in training."""
    expected = [list(row) for row in job.expected]
    scale = scale_of(expected)
    wrong = [
        number
        for number, (want, got) in enumerate(zip(expected, observed, strict=True))
        if len(want) != len(got)
        or any(not abs(g - w) <= allowed(w, scale) for w, g in zip(want, got, strict=True))
    ]
    if wrong:
        raise NotProven(
            what,
            f"it answered {len(wrong)} of {len(expected)} golden records otherwise than training "
            f"did, record {wrong[0]} first",
            "see whether the archive in the artifacts bucket was replaced, then score again",
        )


def _why(what: str, told: dict[str, Any]) -> MlControlError:
    reason = str(told.get("FailureReason") or "").strip()
    if told.get("TransformJobStatus") == "Stopped":
        return Retryable(what, "was ended from outside: SageMaker says Stopped", _TRANSIENT)
    if lacks_capacity(reason):
        return Retryable(what, reason, _TRANSIENT)
    return PlatformFailed(
        what, reason or "failed, and AWS gives no reason", "correct it, then score again"
    )
