"""CreateTrainingJob and what belongs to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_control.testing.sagemaker import channels
from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.images import container_of
from ml_control.testing.sagemaker.listing import page
from ml_control.testing.sagemaker.logs import Logs
from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.roles import check_role
from ml_control.testing.sagemaker.state import Account, Record
from ml_control.testing.sagemaker.storage import Storage
from ml_control.testing.sagemaker.tags import Tags
from ml_control.testing.sagemaker.training import Run, move

KIND = "training-job"
_SHOWN = (
    *("TrainingJobName", "HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig"),
    *("OutputDataConfig", "ResourceConfig", "VpcConfig", "StoppingCondition", "Environment"),
    *("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "RetryStrategy"),
    *("EnableManagedSpotTraining", "CheckpointConfig"),
)
_SUMMARY = (
    *("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime"),
    *("TrainingJobStatus", "SecondaryStatus"),
)


class TrainingJobs:
    """Training jobs of the account."""

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
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "StopTrainingJob": self.stop,
            "ListTrainingJobs": self.listed,
        }

    def create(self, request: Mapping[str, Any]) -> Record:
        """CreateTrainingJob: refused or started."""
        account, name = self._account, request["TrainingJobName"]
        self.check(request)
        with account.lock:
            arn = account.arn(KIND, name)
            if name in account.records[KIND]:
                raise Refused(
                    "ResourceInUse",
                    "Training job names must be unique within an AWS account and region, and a "
                    f"training job with this name already exists ({arn})",
                )
            self._check_limits(request)
            self._tags.put(arn, request.get("Tags", []))
            self.start(request)
        return {"TrainingJobArn": arn}

    def start(self, request: Mapping[str, Any], **more: Any) -> Record:
        """A running job of a request that nothing speaks against. Call under the lock."""
        account, now, name = self._account, self._account.clock(), request["TrainingJobName"]
        record: Record = {
            **{key: request[key] for key in _SHOWN if key in request},
            "TrainingJobArn": account.arn(KIND, name),
            "TrainingJobStatus": "InProgress",
            "CreationTime": now,
            "SecondaryStatusTransitions": [],
            "_stop": threading.Event(),
            "_done": threading.Event(),
            "_stream": int(now),
            **more,
        }
        move(record, "Starting", now)
        account.records[KIND][name] = record
        run = Run(account, self._logs, self._storage, self._director, self._home, record)
        account.work(f"job-{name}", run.run)
        return record

    def describe(self, request: Mapping[str, Any]) -> Record:
        """DescribeTrainingJob."""
        with self._account.lock:
            record = self._find(request)
            shown = {key: value for key, value in record.items() if not key.startswith("_")}
            shown["SecondaryStatusTransitions"] = [
                dict(item) for item in record["SecondaryStatusTransitions"]
            ]
            return shown

    def stop(self, request: Mapping[str, Any]) -> Record:
        """StopTrainingJob."""
        with self._account.lock:
            record = self._find(request)
            status = record["TrainingJobStatus"]
            if status != "InProgress":
                raise invalid(
                    f"The request was rejected because the training job is in status {status}."
                )
            record["TrainingJobStatus"] = "Stopping"
            record["_stop"].set()
        return {}

    def listed(self, request: Mapping[str, Any]) -> Record:
        """ListTrainingJobs."""
        with self._account.lock:
            return page(
                self._account.records[KIND].values(),
                request,
                name="TrainingJobName",
                status="TrainingJobStatus",
                answer="TrainingJobSummaries",
                summary=lambda record: {key: record[key] for key in _SUMMARY if key in record},
            )

    def _find(self, request: Mapping[str, Any]) -> Record:
        name = request["TrainingJobName"]
        return self._account.find(KIND, name, lambda _: invalid("Requested resource not found."))

    def check(self, request: Mapping[str, Any]) -> None:
        """Raise ``Refused`` for what AWS refuses at once, beyond the shape of the request."""
        algorithm, stopping = request["AlgorithmSpecification"], request["StoppingCondition"]
        check_role(request["RoleArn"], self._account)
        if ("TrainingImage" in algorithm) == ("AlgorithmName" in algorithm):
            raise invalid(
                "You must specify exactly one of TrainingImage and AlgorithmName in "
                "AlgorithmSpecification."
            )
        if "AlgorithmName" in algorithm:
            raise invalid("Algorithm resources are not supported by this double.")
        container_of(algorithm["TrainingImage"], self._account.region)
        resources = request["ResourceConfig"]
        for member in ("InstanceType", "InstanceCount"):
            if member not in resources:
                raise invalid(f"ResourceConfig.{member} is required.")
        longest, wait = stopping["MaxRuntimeInSeconds"], stopping.get("MaxWaitTimeInSeconds")
        if request.get("EnableManagedSpotTraining") and (wait is None or wait < longest):
            raise invalid(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
                "MaxRuntimeInSeconds"
            )
        if wait is not None and not request.get("EnableManagedSpotTraining"):
            raise invalid(
                "MaxWaitTimeInSeconds can only be used when EnableManagedSpotTraining is true"
            )
        channels.check(self._storage, request.get("InputDataConfig", []), request["RoleArn"])

    def _check_limits(self, request: Mapping[str, Any]) -> None:
        machine = request["ResourceConfig"]["InstanceType"]
        running = [
            record
            for record in self._account.records[KIND].values()
            if record["TrainingJobStatus"] in {"InProgress", "Stopping"}
        ]
        kind = (
            "spot training job usage"
            if request.get("EnableManagedSpotTraining")
            else ("training job usage")
        )
        used = sum(
            record["ResourceConfig"]["InstanceCount"]
            for record in running
            if record["ResourceConfig"]["InstanceType"] == machine
        )
        asked = request["ResourceConfig"]["InstanceCount"]
        check_limit(self._director, f"{machine} for {kind}", used, asked)
        check_limit(self._director, "training jobs", len(running), 1)


def check_limit(director: Director, what: str, used: int, asked: int) -> None:
    """Raise ``Refused`` (ResourceLimitExceeded) when a limit that was set would be passed."""
    most = director.most(what)
    if most is not None and used + asked > most:
        raise Refused(
            "ResourceLimitExceeded",
            f"The account-level service limit '{what}' is {most} Instances, with current "
            f"utilization of {used} Instances and a request delta of {asked} Instances. Please use "
            "AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is "
            "not available, contact AWS support to request an increase for this quota.",
        )
