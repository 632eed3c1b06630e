"""Batch transform jobs: objects of S3 through the model's own server, one answer for each."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.fleet import START_SECONDS
from ml_control.testing.sagemaker.hosts import Host, Unextractable
from ml_control.testing.sagemaker.listing import page
from ml_control.testing.sagemaker.logs import TRANSFORM, Logs
from ml_control.testing.sagemaker.models import KIND as MODEL
from ml_control.testing.sagemaker.models import absent as no_model
from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.state import Account, Closing, Record
from ml_control.testing.sagemaker.storage import Missing, Storage
from ml_control.testing.sagemaker.tags import Tags
from ml_control.testing.sagemaker.training import CAPACITY

KIND = "transform-job"
PAYLOAD_MB = 6
_POLL_SECONDS = 0.02
_SEE = "See job logs for more information"


class _Ended(Exception):
    """The job ends here: (status, failure reason)."""


class TransformJobs:
    """Transform jobs of the account."""

    def __init__(
        self,
        account: Account,
        logs: Logs,
        storage: Storage,
        director: Director,
        tags: Tags,
        home: Path,
    ) -> None:
        self._account = account
        self._logs = logs
        self._storage = storage
        self._director = director
        self._tags = tags
        self._home = home
        self.operations = {
            "CreateTransformJob": self.create,
            "DescribeTransformJob": self.describe,
            "StopTransformJob": self.stop,
            "ListTransformJobs": self.listed,
        }

    def create(self, request: Mapping[str, Any]) -> Record:
        """CreateTransformJob."""
        account, name = self._account, request["TransformJobName"]
        _check(request)
        with account.lock:
            arn, now = account.arn(KIND, name), account.clock()
            if name in account.records[KIND]:
                raise Refused(
                    "ResourceInUse",
                    "Job name must be unique within an AWS account and region, and a job with "
                    f"this name already exists ({arn})",
                )
            model = account.find(MODEL, request["ModelName"], no_model)
            self._tags.put(arn, request.get("Tags", []))
            record: Record = {
                **{key: value for key, value in request.items() if key != "Tags"},
                "TransformJobArn": arn,
                "TransformJobStatus": "InProgress",
                "CreationTime": now,
                "_modified": now,
                "_stop": threading.Event(),
                "_model": model,
            }
            account.records[KIND][name] = record
        account.work(f"transform-{name}", lambda: self._run(record))
        return {"TransformJobArn": arn}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """DescribeTransformJob."""
        with self._account.lock:
            record = self._find(request)
            return {key: value for key, value in record.items() if not key.startswith("_")}

    def stop(self, request: Mapping[str, Any]) -> Record:
        """StopTransformJob."""
        with self._account.lock:
            record = self._find(request)
            status = record["TransformJobStatus"]
            if status != "InProgress":
                raise invalid(
                    f"The request was rejected because the transform job is in status {status}."
                )
            record["TransformJobStatus"] = "Stopping"
            record["_stop"].set()
        return {}

    def listed(self, request: Mapping[str, Any]) -> Record:
        """ListTransformJobs."""
        keys = (
            *("TransformJobName", "TransformJobArn", "CreationTime", "TransformEndTime"),
            *("TransformJobStatus", "FailureReason"),
        )
        with self._account.lock:
            return page(
                self._account.records[KIND].values(),
                request,
                name="TransformJobName",
                status="TransformJobStatus",
                answer="TransformJobSummaries",
                summary=lambda record: {
                    **{key: record[key] for key in keys if key in record},
                    "LastModifiedTime": record["_modified"],
                },
            )

    def _find(self, request: Mapping[str, Any]) -> Record:
        return self._account.find(
            KIND,
            request["TransformJobName"],
            lambda _: invalid(
                f"Could not find requested job with name: {request['TransformJobName']}"
            ),
        )

    def _run(self, record: Record) -> None:
        host: Host | None = None
        try:
            plan = self._director.take("transform", record["TransformJobName"])
            self._pause(record, self._account.times.starting)
            if plan is not None and plan.kind in CAPACITY:
                raise _Ended("Failed", CAPACITY[plan.kind])
            if plan is not None and plan.kind == "ClientError":
                raise _Ended("Failed", f"ClientError: {plan.detail['reason'] or _SEE}")
            host = self._host(record)
            with self._account.lock:
                record["TransformStartTime"] = self._account.clock()
            while plan is not None and not self._director.released(plan):
                self._pause(record, self._account.times.starting)
            for uri, relative in self._objects(record):
                self._one(record, host, uri, relative)
            raise _Ended("Completed", "")
        except _Ended as end:
            self._finish(record, *end.args)
        except Closing:
            raise
        except Exception as error:  # the fake's own fault must not look like a job that hangs
            self._finish(record, "Failed", f"InternalServerError: the fake failed: {error!r}")
        finally:
            if host is not None:
                host.end()

    def _host(self, record: Record) -> Host:
        """The model's server, answering. Raises ``_Ended``."""
        name = record["TransformJobName"]
        model = record["_model"]
        environment = {**model["PrimaryContainer"].get("Environment", {})}
        environment.update(record.get("Environment", {}))
        # The platform lifts the container's own limit to what the job may send at once.
        environment["MAX_CONTENT_LENGTH"] = str(_payload(record))
        wanted = {
            **model,
            "PrimaryContainer": {**model["PrimaryContainer"], "Environment": environment},
        }
        folder = self._home / "transform" / name
        try:
            host = Host(
                self._storage,
                wanted,
                folder,
                self._account.region,
                lambda line: self._log(record, line),
            )
        except Unextractable as error:
            raise _Ended("Failed", f"ClientError: {error}") from error
        waited = 0.0
        try:
            while not host.ready():
                if host.ended() or waited > START_SECONDS:
                    raise _Ended("Failed", f"AlgorithmError: {_SEE}")
                self._pause(record, 0.0)
                if self._account.closing.wait(_POLL_SECONDS):
                    raise Closing
                waited += _POLL_SECONDS
        except BaseException:
            host.end()
            raise
        return host

    def _objects(self, record: Record) -> Iterator[tuple[str, str]]:
        """The input objects and their names below the output path. Raises ``_Ended``."""
        source = record["TransformInput"]["DataSource"]["S3DataSource"]
        uri = source["S3Uri"]
        try:
            if source["S3DataType"] == "ManifestFile":
                found, base = self._storage.manifest(uri), self._storage.manifest_prefix(uri)
            else:
                found, base = self._storage.keys(uri), uri.rpartition("/")[0] + "/"
        except Missing as error:
            raise _Ended("Failed", f"ClientError: Data download failed:{error}") from error
        if not found:
            raise _Ended("Failed", f"ClientError: No S3 objects found under S3 URL {uri}")
        for item in found:
            yield item, item.removeprefix(base)

    def _one(self, record: Record, host: Host, uri: str, relative: str) -> None:
        """One object through the model into ``<relative>.out``. Raises ``_Ended``."""
        import httpx

        given, output = record["TransformInput"], record["TransformOutput"]
        try:
            data = self._storage.read(uri)
        except Missing as error:
            raise _Ended("Failed", f"ClientError: Data download failed:{error}") from error
        if given.get("CompressionType") == "Gzip":
            data = gzip.decompress(data)
        headers = {"content-type": given.get("ContentType", "text/csv")}
        if "Accept" in output:
            headers["accept"] = output["Accept"]
        answers = []
        with httpx.Client(trust_env=False, timeout=60.0) as client:
            for batch in _batches(data, record):
                self._pause(record, 0.0)
                reply = client.post(f"{host.url}/invocations", content=batch, headers=headers)
                if reply.status_code >= 400:
                    told = reply.text.strip()
                    self._log(
                        record,
                        f"{uri}: Bad HTTP status received from algorithm: "
                        f"{reply.status_code}: {told}",
                        "data-log",
                    )
                    raise _Ended("Failed", f"AlgorithmError: {_SEE}")
                answers.append(reply.content)
        whole = b"".join(answers)
        if output.get("AssembleWith") == "Line":
            whole = b"".join(
                answer if answer.endswith(b"\n") else answer + b"\n" for answer in answers
            )
        target = f"{output['S3OutputPath'].rstrip('/')}/{relative}.out"
        try:
            self._storage.write(target, whole, output.get("KmsKeyId", ""))
        except Missing as error:
            raise _Ended("Failed", f"ClientError: Output upload failed:{error}") from error

    def _pause(self, record: Record, seconds: float) -> None:
        """Wait. Raises ``_Ended`` when the job was asked to stop."""
        if self._account.pause(seconds, record["_stop"]) or record["_stop"].is_set():
            raise _Ended("Stopped", "")

    def _finish(self, record: Record, status: str, reason: str) -> None:
        with self._account.lock:
            if reason:
                record["FailureReason"] = reason[:1024]
            now = self._account.clock()
            record.update(TransformJobStatus=status, TransformEndTime=now, _modified=now)

    def _log(self, record: Record, line: str, part: str = "") -> None:
        stream = f"{record['TransformJobName']}/i-{int(record['CreationTime']):017x}"
        self._logs.write(TRANSFORM, f"{stream}/{part}" if part else stream, line)


def _check(request: Mapping[str, Any]) -> None:
    processing = request.get("DataProcessing", {})
    if (
        processing.get("InputFilter", "$") != "$"
        or processing.get("OutputFilter", "$") != "$"
        or processing.get("JoinSource", "None") != "None"
    ):
        raise invalid("DataProcessing filters and joins are not supported by this double.")
    given = request["TransformInput"]
    if given.get("SplitType", "None") not in {"None", "Line"}:
        raise invalid(f"SplitType {given['SplitType']} is not supported by this double.")
    source = given["DataSource"]["S3DataSource"]
    if source["S3DataType"] not in {"S3Prefix", "ManifestFile"}:
        raise invalid(f"S3DataType {source['S3DataType']} is not supported for transform jobs.")


def _payload(record: Mapping[str, Any]) -> int:
    return int(record.get("MaxPayloadInMB") or PAYLOAD_MB) << 20


def _batches(data: bytes, record: Mapping[str, Any]) -> Iterator[bytes]:
    """What is sent at once: the object, its lines, or as many lines as a payload holds."""
    if record["TransformInput"].get("SplitType", "None") == "None":
        yield data
        return
    most, size = _payload(record), 0
    batch: list[bytes] = []
    single = record.get("BatchStrategy") == "SingleRecord"
    for line in data.splitlines(keepends=True):
        if batch and (single or size + len(line) > most):
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield b"".join(batch)
