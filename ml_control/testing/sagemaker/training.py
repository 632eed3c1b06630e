"""A training job from Starting to its end, really training in the container's XGBoost."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_control.testing.sagemaker import channels
from ml_control.testing.sagemaker.director import Director, Plan
from ml_control.testing.sagemaker.images import container_of
from ml_control.testing.sagemaker.logs import TRAINING, Logs
from ml_control.testing.sagemaker.programs import Program
from ml_control.testing.sagemaker.refused import Refused
from ml_control.testing.sagemaker.state import Account, Closing, Record
from ml_control.testing.sagemaker.storage import Missing, Storage

CAPACITY = {
    "CapacityError": (
        "CapacityError: Unable to provision requested ML compute capacity. Please retry using a "
        "different ML instance type."
    ),
    "InsufficientInstanceCapacity": (
        "InsufficientInstanceCapacity: We currently do not have sufficient capacity for the "
        "requested instance type. Please try again or use a different instance type."
    ),
    "InternalServerError": (
        "InternalServerError: We encountered an internal error. Please try again."
    ),
}
_METRIC = re.compile(r"^\[\d+\]\t(.+)$")
_POLL_SECONDS = 0.02
_REASON = 1024  # AWS cuts a FailureReason here
_WORDS = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "Interrupted": "Your training job was interrupted because spot capacity was taken back.",
    "Restarting": "Restarting the training job",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
}


class _Ended(Exception):
    """The job ends here: (status, secondary status, failure reason)."""


class Run:
    """One training job's life; ``run`` is a task of the account."""

    def __init__(
        self,
        account: Account,
        logs: Logs,
        storage: Storage,
        director: Director,
        home: Path,
        record: Record,
    ) -> None:
        self._account = account
        self._logs = logs
        self._storage = storage
        self._director = director
        self._record = record
        self._name: str = record["TrainingJobName"]
        self._folder = home / "jobs" / self._name
        self._stop: threading.Event = record["_stop"]
        self._values: dict[str, float] = {}
        self._billed = 0.0
        count = record["ResourceConfig"].get("InstanceCount", 1)
        self._hosts = [f"algo-{number}" for number in range(1, count + 1)]

    def run(self) -> None:
        """Go through every state; the record tells where it is."""
        try:
            plan = self._director.take("training", self._name)
            while self._attempt(plan):
                plan = None  # the second attempt after an interruption is undisturbed
            self._upload()
            if self._stop.is_set():
                raise _Ended("Stopped", "Stopped", "")
            raise _Ended("Completed", "Completed", "")
        except _Ended as end:
            self._finish(*end.args)
        except Closing:
            raise
        except Exception as error:  # the fake's own fault must not look like a job that hangs
            self._finish("Failed", "Failed", f"InternalServerError: the fake failed: {error!r}")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self, plan: Plan | None) -> bool:
        """Train once; whether it was interrupted and is to be done again. Raises ``_Ended``."""
        kind = plan.kind if plan else ""
        times = self._account.times
        self._pause(times.starting)
        if kind in CAPACITY:
            raise _Ended("Failed", "Failed", CAPACITY[kind])
        self._to("Downloading")
        self._pause(times.downloading)
        self._prepare()
        self._to("Training")
        begun = time.monotonic()
        try:
            if plan is not None and kind == "AlgorithmError":
                said = plan.detail["reason"] or "framework error: it was told to fail"
                raise _Ended("Failed", "Failed", f"AlgorithmError: {said}, exit code: 1")
            if plan is not None and kind == "hang":
                self._hang(plan)
            elif kind == "MaxRuntimeExceeded":
                raise _Ended("Stopped", "MaxRuntimeExceeded", "")
            else:
                self._train(cut=kind in {"Interrupted", "MaxWaitTimeExceeded"})
        finally:
            self._billed += time.monotonic() - begun
        if kind not in {"Interrupted", "MaxWaitTimeExceeded"}:
            return False
        self._to("Interrupted")
        if kind == "MaxWaitTimeExceeded":
            wait = self._record["StoppingCondition"].get("MaxWaitTimeInSeconds", 0)
            self._pause(min(wait, 3600))
            raise _Ended("Stopped", "MaxWaitTimeExceeded", "")
        self._pause(times.interrupted)
        self._to("Restarting")
        return True

    def _prepare(self) -> None:
        """The folder that the container sees, from S3."""
        shutil.rmtree(self._folder, ignore_errors=True)
        config = self._folder / "input" / "config"
        config.mkdir(parents=True)
        inputs: dict[str, Any] = {}
        try:
            for channel in self._record.get("InputDataConfig", []):
                name = channel["ChannelName"]
                found = channels.shards(self._storage, channel, self._hosts)
                for host, uris in found.items():
                    kept = f"channel {name}: {len(uris)} objects" if uris else "no data; drops out"
                    self._log(f"{host}: {kept}", host)
                channels.download(
                    self._storage, channel, found, self._folder / "input" / "data" / name
                )
                inputs[name] = {"ContentType": channels.content_type(channel)}
        except Missing as error:
            reason = f"ClientError: Data download failed:{error}"
            raise _Ended("Failed", "Failed", reason) from error
        except Refused as error:
            raise _Ended("Failed", "Failed", f"{error.code}: {error.message}") from error
        (config / "hyperparameters.json").write_text(
            json.dumps(self._record.get("HyperParameters", {}))
        )
        (config / "inputdataconfig.json").write_text(json.dumps(inputs))
        (config / "resourceconfig.json").write_text(
            json.dumps({"current_host": "algo-1", "hosts": self._hosts})
        )

    def _train(self, *, cut: bool) -> None:
        """Run the program; with ``cut`` end it after its first round, as losing spot does."""
        image = self._record["AlgorithmSpecification"]["TrainingImage"]
        container = container_of(image, self._account.region)
        first_round = threading.Event()

        def printed(line: str) -> None:
            self._log(line)
            if match := _METRIC.match(line):
                first_round.set()
                for pair in match[1].split("\t"):
                    name, _, value = pair.rpartition(":")
                    self._values[name.replace("-", ":", 1)] = float(value)

        arguments = ["--prefix", str(self._folder)]
        program = Program("train", container, arguments, self._folder, printed)
        began = time.monotonic()
        limit = self._record["StoppingCondition"]["MaxRuntimeInSeconds"]
        try:
            while (code := program.code()) is None:
                if cut and first_round.is_set():
                    return
                if time.monotonic() - began > limit:
                    raise _Ended("Stopped", "MaxRuntimeExceeded", "")
                if self._stop.is_set():
                    self._stopping()
                if self._account.closing.wait(_POLL_SECONDS):
                    raise Closing
        finally:
            program.end()
        if code != 0 and not cut:
            try:
                said = (self._folder / "output" / "failure").read_text("utf-8")
            except FileNotFoundError:
                said = "framework error: the training process was ended"
            tail = f", exit code: {code}"
            reason = f"AlgorithmError: {said}"[: _REASON - len(tail)] + tail
            raise _Ended("Failed", "Failed", reason)

    def _hang(self, plan: Plan) -> None:
        """Train forever, but for the maximum runtime, which is scaled here."""
        self._log("[0]\ttrain-hanging:0.0")
        deadline = time.monotonic() + self._account.scaled(
            self._record["StoppingCondition"]["MaxRuntimeInSeconds"]
        )
        while time.monotonic() < deadline:
            if self._director.released(plan):
                return self._train(cut=False)
            if self._stop.is_set():
                self._stopping()
            if self._account.closing.wait(_POLL_SECONDS):
                raise Closing
        raise _Ended("Stopped", "MaxRuntimeExceeded", "")

    def _upload(self) -> None:
        self._to("Uploading")
        model = self._folder / "model"
        # A stop that comes now is too late to keep the model from being written.
        self._account.pause(self._account.times.uploading)
        output = self._record["OutputDataConfig"]
        uri = f"{output['S3OutputPath'].rstrip('/')}/{self._name}/output/model.tar.gz"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for path in sorted(model.iterdir()):
                tar.add(path, path.name)
        try:
            self._storage.write(uri, packed.getvalue(), output.get("KmsKeyId", ""))
        except Missing as error:
            reason = f"ClientError: Artifact upload failed:{error}"
            raise _Ended("Failed", "Failed", reason) from error
        with self._account.lock:
            self._record["ModelArtifacts"] = {"S3ModelArtifacts": uri}

    def _pause(self, seconds: float) -> None:
        if self._account.pause(seconds, self._stop):
            self._stopping()

    def _stopping(self) -> None:
        """It was asked to stop: nothing is there to upload, because the program saves last."""
        self._to("Stopping")
        self._account.pause(self._account.times.stopping)
        raise _Ended("Stopped", "Stopped", "")

    def _to(self, secondary: str) -> None:
        with self._account.lock:
            move(self._record, secondary, self._account.clock())
            if secondary == "Training":
                self._record.setdefault("TrainingStartTime", self._account.clock())

    def _finish(self, status: str, secondary: str, reason: str) -> None:
        now = self._account.clock()
        with self._account.lock:
            record = self._record
            if reason:
                record["FailureReason"] = reason[:_REASON]
            if "TrainingStartTime" in record:
                record["TrainingEndTime"] = now
                seconds = max(1, round(self._billed + 0.5))
                record["TrainingTimeInSeconds"] = seconds
                spot = record.get("EnableManagedSpotTraining", False)
                record["BillableTimeInSeconds"] = max(1, round(seconds * 0.3)) if spot else seconds
            record["FinalMetricDataList"] = [
                {"MetricName": name, "Value": value, "Timestamp": now}
                for name, value in self._values.items()
            ]
            record["TrainingJobStatus"] = status
            move(record, secondary, now, reason)
            record["_done"].set()

    def _log(self, line: str, host: str = "algo-1") -> None:
        stream = f"{self._name}/{host}-{self._record['_stream']}"
        self._logs.write(TRAINING, stream, line)


def move(record: Record, secondary: str, now: float, words: str = "") -> None:
    """Note a secondary status and when it began. Call under the lock."""
    transitions: list[dict[str, Any]] = record["SecondaryStatusTransitions"]
    if transitions and "EndTime" not in transitions[-1]:
        transitions[-1]["EndTime"] = now
    entry: Mapping[str, Any] = {
        "Status": secondary,
        "StartTime": now,
        "StatusMessage": words or _WORDS.get(secondary, secondary),
    }
    transitions.append(dict(entry))
    record["SecondaryStatus"] = secondary
    record["LastModifiedTime"] = now
