"""Hyperparameter tuning jobs: real training jobs with parameters drawn from the ranges.

Whatever the strategy, values are drawn at random by the seed: nothing is learned from earlier
trials, and the same request gives the same trials again.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Mapping
from typing import Any

from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.jobs import KIND as TRAINING
from ml_control.testing.sagemaker.jobs import TrainingJobs
from ml_control.testing.sagemaker.listing import page
from ml_control.testing.sagemaker.ranges import check_ranges, draw
from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.state import Account, Closing, Record
from ml_control.testing.sagemaker.tags import Tags

KIND = "hyper-parameter-tuning-job"
_OBJECTIVE = re.compile(r"(train|validation):[a-z][a-z0-9@.-]*")
_GIVE_UP = 5
_POLL_SECONDS = 0.02
_PASSED = (
    *("RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition"),
    *("EnableManagedSpotTraining", "CheckpointConfig", "VpcConfig", "Environment"),
    *("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "RetryStrategy"),
)


class TuningJobs:
    """Hyperparameter tuning jobs of the account."""

    def __init__(
        self, account: Account, jobs: TrainingJobs, director: Director, tags: Tags
    ) -> None:
        self._account = account
        self._jobs = jobs
        self._director = director
        self._tags = tags
        self.operations = {
            "CreateHyperParameterTuningJob": self.create,
            "DescribeHyperParameterTuningJob": self.describe,
            "StopHyperParameterTuningJob": self.stop,
            "ListHyperParameterTuningJobs": self.listed,
            "ListTrainingJobsForHyperParameterTuningJob": self.children,
        }

    def create(self, request: Mapping[str, Any]) -> Record:
        """CreateHyperParameterTuningJob."""
        account, name = self._account, request["HyperParameterTuningJobName"]
        for member in ("TrainingJobDefinitions", "WarmStartConfig", "Autotune"):
            if member in request:
                raise invalid(f"{member} is not supported by this double.")
        if "TrainingJobDefinition" not in request:
            raise invalid("A TrainingJobDefinition is required.")
        config, definition = (
            request["HyperParameterTuningJobConfig"],
            request["TrainingJobDefinition"],
        )
        self._check(config, definition)
        with account.lock:
            arn, now = account.arn(KIND, name), account.clock()
            if name in account.records[KIND]:
                raise Refused(
                    "ResourceInUse",
                    "Hyperparameter tuning job names must be unique within an AWS account and "
                    "region, and a hyperparameter tuning job with this name already exists "
                    f"({arn})",
                )
            self._tags.put(arn, request.get("Tags", []))
            record: Record = {
                "HyperParameterTuningJobName": name,
                "HyperParameterTuningJobArn": arn,
                "HyperParameterTuningJobConfig": config,
                "TrainingJobDefinition": definition,
                "HyperParameterTuningJobStatus": "InProgress",
                "CreationTime": now,
                "LastModifiedTime": now,
                "_children": [],
                "_stop": threading.Event(),
            }
            account.records[KIND][name] = record
        account.work(f"tuning-{name}", lambda: self._run(record))
        return {"HyperParameterTuningJobArn": arn}

    def describe(self, request: Mapping[str, Any]) -> Record:
        """DescribeHyperParameterTuningJob, with counters and the best job so far."""
        with self._account.lock:
            record = self._find(request)
            shown = {key: value for key, value in record.items() if not key.startswith("_")}
            shown.update(self._counters(record))
            best = self._best(record)
            if best is not None:
                shown["BestTrainingJob"] = self._child(record, best)
            return shown

    def stop(self, request: Mapping[str, Any]) -> Record:
        """StopHyperParameterTuningJob, with the training jobs that run for it."""
        with self._account.lock:
            record = self._find(request)
            status = record["HyperParameterTuningJobStatus"]
            if status != "InProgress":
                raise invalid(
                    f"The request was rejected because the tuning job is in status {status}."
                )
            record["HyperParameterTuningJobStatus"] = "Stopping"
            record["_stop"].set()
        return {}

    def listed(self, request: Mapping[str, Any]) -> Record:
        """ListHyperParameterTuningJobs."""
        keys = (
            *("HyperParameterTuningJobName", "HyperParameterTuningJobArn", "LastModifiedTime"),
            *("HyperParameterTuningJobStatus", "CreationTime", "HyperParameterTuningEndTime"),
        )

        def summary(record: Record) -> Record:
            config = record["HyperParameterTuningJobConfig"]
            return {
                **{key: record[key] for key in keys if key in record},
                "Strategy": config["Strategy"],
                "ResourceLimits": config["ResourceLimits"],
                **self._counters(record),
            }

        with self._account.lock:
            return page(
                self._account.records[KIND].values(),
                request,
                name="HyperParameterTuningJobName",
                status="HyperParameterTuningJobStatus",
                answer="HyperParameterTuningJobSummaries",
                summary=summary,
            )

    def children(self, request: Mapping[str, Any]) -> Record:
        """ListTrainingJobsForHyperParameterTuningJob."""
        with self._account.lock:
            record = self._find(request)
            found = self._children(record)
            if request.get("SortBy") == "FinalObjectiveMetricValue":
                # Only those that have a value can be ordered by it, as in AWS.
                found = [item for item in found if self._value(record, item) is not None]
                for item in found:
                    item["_value"] = self._value(record, item)
            return page(
                found,
                {**request, "SortBy": request.get("SortBy", "Name")},
                name="TrainingJobName",
                status="TrainingJobStatus",
                answer="TrainingJobSummaries",
                summary=lambda item: self._child(record, item),
                orders={"FinalObjectiveMetricValue": "_value"},
            )

    def _find(self, request: Mapping[str, Any]) -> Record:
        name = request["HyperParameterTuningJobName"]
        return self._account.find(
            KIND, name, lambda _: Refused("ResourceNotFound", "Requested resource not found.")
        )

    def _check(self, config: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
        objective = config.get("HyperParameterTuningJobObjective")
        if objective is None:
            raise invalid("HyperParameterTuningJobObjective is required.")
        if not _OBJECTIVE.fullmatch(objective["MetricName"]):
            raise invalid(
                "The objective metric for the hyperparameter tuning job, "
                f"[{objective['MetricName']}], isn't valid for the XGBoost algorithm. Choose a "
                "valid objective metric."
            )
        limits = config["ResourceLimits"]
        if "MaxNumberOfTrainingJobs" not in limits:
            raise invalid("MaxNumberOfTrainingJobs is required.")
        if limits["MaxParallelTrainingJobs"] > limits["MaxNumberOfTrainingJobs"]:
            raise invalid(
                "MaxParallelTrainingJobs must not be greater than MaxNumberOfTrainingJobs."
            )
        static = definition.get("StaticHyperParameters", {})
        if "_tuning_objective_metric" in static:
            raise invalid("Hyperparameter _tuning_objective_metric is reserved.")
        check_ranges(config.get("ParameterRanges", {}), static)
        if "ResourceConfig" not in definition:
            raise invalid("ResourceConfig is required in TrainingJobDefinition.")
        self._jobs.check(definition)

    def _run(self, record: Record) -> None:
        """Keep as many children running as may, until there were enough."""
        config = record["HyperParameterTuningJobConfig"]
        limits = config["ResourceLimits"]
        most, together = limits["MaxNumberOfTrainingJobs"], limits["MaxParallelTrainingJobs"]
        seed = [
            self._director.seed,
            record["HyperParameterTuningJobName"],
            config.get("RandomSeed", 0),
        ]
        source = random.Random(repr(seed))  # noqa: S311 - must be repeatable
        status, reason = "Completed", ""
        while True:
            with self._account.lock:
                found = self._children(record)
                running = [item for item in found if not item["_done"].is_set()]
                stopped = record["_stop"].is_set()
                gone_wrong = self._hopeless(found)
                if (stopped or gone_wrong) and running:
                    self._stop_all(running)
                elif stopped:
                    status = "Stopped"
                    break
                elif gone_wrong or (len(found) == most and not running):
                    break
                while (
                    not (stopped or gone_wrong)
                    and len(running) < together
                    and (len(record["_children"]) < most)
                ):
                    running.append(self._start(record, source))
            if self._account.closing.wait(_POLL_SECONDS):
                raise Closing
        with self._account.lock:
            found = self._children(record)
            if status == "Completed" and self._best(record) is None:
                status = "Failed"
                reason = (
                    f"No training job succeeded after {len(found)} attempts. Please take a look "
                    "at the training job failures to get more details."
                )
                record["FailureReason"] = reason
            now = self._account.clock()
            record.update(
                HyperParameterTuningJobStatus=status,
                LastModifiedTime=now,
                HyperParameterTuningEndTime=now,
            )

    def _start(self, record: Record, source: random.Random) -> Record:
        config, definition = (
            record["HyperParameterTuningJobConfig"],
            record["TrainingJobDefinition"],
        )
        tuned = draw(config["ParameterRanges"], source)
        number = len(record["_children"]) + 1
        tuning = record["HyperParameterTuningJobName"]
        mark = hashlib.sha256(f"{self._director.seed}{tuning}{number}".encode()).hexdigest()[:8]
        name = f"{tuning}-{number:03d}-{mark}"
        algorithm = {
            key: definition["AlgorithmSpecification"][key]
            for key in ("TrainingImage", "TrainingInputMode")
        }
        request = {
            "TrainingJobName": name,
            "AlgorithmSpecification": algorithm,
            "HyperParameters": {
                **definition.get("StaticHyperParameters", {}),
                **tuned,
                "_tuning_objective_metric": (
                    config["HyperParameterTuningJobObjective"]["MetricName"]
                ),
            },
            **{key: definition[key] for key in _PASSED if key in definition},
        }
        record["_children"].append(name)
        return self._jobs.start(
            request, TuningJobArn=record["HyperParameterTuningJobArn"], _tuned=tuned
        )

    def _stop_all(self, running: list[Record]) -> None:
        for item in running:
            if item["TrainingJobStatus"] == "InProgress":
                item["TrainingJobStatus"] = "Stopping"
                item["_stop"].set()

    def _hopeless(self, found: list[Record]) -> bool:
        """Whether so many failed, and none succeeded, that AWS gives up."""
        ended = [item["TrainingJobStatus"] for item in found if item["_done"].is_set()]
        return "Completed" not in ended and ended.count("Failed") >= _GIVE_UP

    def _children(self, record: Record) -> list[Record]:
        jobs = self._account.records[TRAINING]
        return [jobs[name] for name in record["_children"]]

    def _value(self, record: Record, child: Record) -> float | None:
        """The last logged value of the objective of a job that completed."""
        wanted = record["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        if child["TrainingJobStatus"] != "Completed":
            return None
        for metric in child.get("FinalMetricDataList", []):
            if metric["MetricName"] == wanted["MetricName"]:
                return float(metric["Value"])
        return None

    def _best(self, record: Record) -> Record | None:
        kind = record["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["Type"]
        sign = 1 if kind == "Minimize" else -1
        ranked = [
            (sign * value, item["TrainingJobName"], item)
            for item in self._children(record)
            if (value := self._value(record, item)) is not None
        ]
        return min(ranked)[2] if ranked else None

    def _child(self, record: Record, child: Record) -> Record:
        keys = (
            *("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingStartTime"),
            *("TrainingEndTime", "TrainingJobStatus", "FailureReason"),
        )
        value = self._value(record, child)
        ended = child["_done"].is_set()
        shown = {key: child[key] for key in keys if key in child}
        shown["TunedHyperParameters"] = child["_tuned"]
        shown["ObjectiveStatus"] = "Pending" if not ended else "Failed"
        if value is not None:
            objective = record["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
            shown["ObjectiveStatus"] = "Succeeded"
            shown["FinalHyperParameterTuningJobObjectiveMetric"] = {
                "Type": objective["Type"],
                "MetricName": objective["MetricName"],
                "Value": value,
            }
        return shown

    def _counters(self, record: Record) -> Record:
        states = [item["TrainingJobStatus"] for item in self._children(record)]
        objectives = [
            self._child(record, item)["ObjectiveStatus"] for item in self._children(record)
        ]
        return {
            "TrainingJobStatusCounters": {
                "Completed": states.count("Completed"),
                "InProgress": states.count("InProgress") + states.count("Stopping"),
                "RetryableError": 0,
                "NonRetryableError": states.count("Failed"),
                "Stopped": states.count("Stopped"),
            },
            "ObjectiveStatusCounters": {
                state: objectives.count(state) for state in ("Succeeded", "Pending", "Failed")
            },
        }
