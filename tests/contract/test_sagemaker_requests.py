"""What SageMaker is asked for and what its answers mean: requests, names, reasons, logs, images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ml_control.aws.images import image_uri
from ml_control.aws.training import claims
from ml_control.aws.training.logs import JobLog
from ml_control.aws.training.reasons import why
from ml_control.aws.training.requests import hyperparameters, training, tuning
from ml_control.errors import InvalidSpec, PlatformFailed, Retryable
from ml_control.ports import Search, TrainingJob
from ml_control.settings import AwsSettings
from ml_control.spec import SageMakerTraining

SETTINGS = {
    "num_round": "12",
    "max_depth": "3",
    "objective": "binary:logistic",
    "eval_metric": "logloss",
}


@pytest.fixture
def job():
    """Make a job on machines."""

    def make(machines=None, **changes):
        return TrainingJob(
            "shop-0123456789abcdef",
            "3.2-0",
            {**SETTINGS, **changes},
            {"train": [Path("train.csv")]},
            Path("golden.csv"),
            600.0,
            machines=SageMakerTraining(**(machines or {})),
        )

    return make


def asked(job, **settings):
    """What SageMaker is asked under these settings."""
    settings = AwsSettings(role_arn="arn:aws:iam::123456789012:role/r", **settings)
    return training(
        settings, job, image="i", manifests={"train": "t", "validation": "v"}, output="o"
    )


def shares(request):
    """How each channel goes to the hosts."""
    return {
        one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3DataDistributionType"]
        for one in request["InputDataConfig"]
    }


def test_machines_are_asked_for_as_the_pipeline_file_says(job):
    """Several instances share the training data alone; spot waits at least as long as it runs."""
    several = asked(
        job(machines={"instance_count": 3, "volume_gb": 50, "instance_type": "ml.c5.xlarge"})
    )
    spot = asked(job(machines={"spot": True, "max_wait": "1 min"}))
    gpu = job(machines={"gpu": True, "instance_count": 2, "instance_type": "ml.g5.2xlarge"})

    assert {"train": "ShardedByS3Key", "validation": "FullyReplicated"} == shares(several)
    assert several["ResourceConfig"] == {
        "InstanceType": "ml.c5.xlarge",
        "InstanceCount": 3,
        "VolumeSizeInGB": 50,
    }
    assert "EnableManagedSpotTraining" not in several
    assert spot["EnableManagedSpotTraining"]
    assert {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600} == spot["StoppingCondition"]
    assert {"FullyReplicated"} == set(shares(asked(gpu)).values())
    used = hyperparameters(gpu)
    assert ("true", "hist") == (used["use_dask_gpu_training"], used["tree_method"])
    assert "device" not in used


def test_keys_and_networks_are_used_where_they_are_named(job):
    """Volume and output are encrypted; disks of the instance's own cannot be, and are left."""
    key = asked(job(), kms_key="k", subnets=("subnet-1",), security_groups=("sg-1",))
    own = asked(job(machines={"instance_type": "ml.g5.xlarge"}), kms_key="k")

    assert "k" == key["OutputDataConfig"]["KmsKeyId"] == key["ResourceConfig"]["VolumeKmsKeyId"]
    assert {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]} == key["VpcConfig"]
    assert "k" == own["OutputDataConfig"]["KmsKeyId"]
    assert "VolumeKmsKeyId" not in own["ResourceConfig"]
    with pytest.raises(InvalidSpec, match="security_groups"):
        asked(job(), subnets=("subnet-1",))
    with pytest.raises(InvalidSpec, match="role_arn"):
        training(AwsSettings(), job(), image="i", manifests={}, output="o")
    with pytest.raises(InvalidSpec, match="gblinear"):
        hyperparameters(job(booster="gblinear", early_stopping_rounds="3"))


@pytest.mark.parametrize(
    "name", ["a", "a_b-c", "x" * 63, "shop-0123456789abcdef", "a" * 30 + "-" * 30 + "b"]
)
@pytest.mark.parametrize("longest", [32, 63])
def test_names_of_attempts_are_names(name, longest):
    """Every attempt has a name of its own that SageMaker takes, and always the same."""
    names = list(claims.attempts(name, longest))

    assert claims.TRIES == len(set(names)) == len(names)
    pattern = rf"[a-zA-Z0-9](-*[a-zA-Z0-9]){{0,{longest - 1}}}"
    assert all(re.fullmatch(pattern, one) for one in names)
    assert names == list(claims.attempts(name, longest))
    if len(name) <= longest - 3 and "_" not in name:
        assert [name, f"{name}-2"] == names[:2]


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        (("Failed", "", "CapacityError: Unable to provision requested ML compute capacity."),
         Retryable, "instance_type"),
        (("Failed", "", "InsufficientInstanceCapacity: none"), Retryable, "instance_type"),
        (("Failed", "", "InternalServerError: We encountered an error"), Retryable, "again"),
        (("Failed", "", "ResourceLimitExceeded: The account-level service limit is 0"),
         PlatformFailed, "Service Quotas"),
        (("Failed", "", "AlgorithmError: \nError: Hyperparameter eta: 3 is no\n\n, exit code: 1"),
         InvalidSpec, "training.hyperparameters"),
        (("Failed", "", "ClientError: Extraneous hyperparameter found: foo, exit code: 1"),
         InvalidSpec, "training.hyperparameters"),
        (("Failed", "", "AlgorithmError: framework error: out of memory, exit code: 137"),
         PlatformFailed, "train again"),
        (("Failed", "", ""), PlatformFailed, "train again"),
        (("Stopped", "MaxRuntimeExceeded", ""), PlatformFailed, "training.max_runtime"),
        (("Stopped", "MaxWaitTimeExceeded", ""), Retryable, "max_wait"),
        (("Stopped", "Stopped", ""), Retryable, "new job"),
    ],
)  # fmt: skip
def test_a_failure_is_told_with_its_next_step(told, kind, words):
    """By what AWS and the container say, and for the unknown with the end of the log."""
    status, step, reason = told
    described = {
        "TrainingJobStatus": status,
        "SecondaryStatus": step,
        "FailureReason": reason,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90},
    }

    error = why("training job x", described, "[3]\ttrain-auc:0.5")

    assert kind is type(error)
    assert words in error.next
    if kind is InvalidSpec:
        assert "exit code" not in error.reason
        assert error.reason.startswith(("Hyperparameter eta", "Extraneous"))
    if step == "MaxRuntimeExceeded":
        assert "MaxRuntimeExceeded" in error.reason
    if "out of memory" in reason:
        assert "train-auc:0.5" in error.reason


class Logs:
    """CloudWatch with pages of two lines."""

    def __init__(self, streams):
        self.streams = streams

    def get_paginator(self, _):
        return self

    def paginate(self, **_):
        return [
            {
                "logStreams": [
                    {"logStreamName": n, "creationTime": i} for i, n in enumerate(self.streams)
                ]
            }
        ]

    def get_log_events(self, **asked):
        lines, at = self.streams[asked["logStreamName"]], int(asked.get("nextToken", 0))
        events = [{"message": line} for line in lines[at : at + 2]]
        return {"events": events, "nextForwardToken": str(at + len(events))}

    def client(self, _):
        return self


def test_rounds_are_read_on_and_told_once():
    """Across pages, from the first host alone, also after an interruption began anew."""
    first = ["[0]#011train-auc:0.5", "noise", "[1]#011train-auc:0.6", "[12:00:00] WARNING: x"]
    logs = Logs({"j/algo-1-1": first, "j/algo-2-1": ["[0]#011train-auc:0.1"]})
    log, seen = JobLog(logs, "j"), []
    log.read()
    log.tell(seen.append)
    assert [0.5, 0.6] == [step.metrics["train-auc"] for step in seen]

    logs.streams["j/algo-1-2"] = [f"[{n}]#011train-auc:0.{n + 7}" for n in range(3)]
    log.read()
    log.tell(seen.append)
    assert [0, 1, 2] == [step.index for step in seen]
    assert [0.7, 0.8, 0.9] == [step.metrics["train-auc"] for step in log.rounds]
    assert log.tail(1) == "[2]\ttrain-auc:0.9"


def test_a_tuning_job_searches_where_the_ratio_counts_by_the_ratio(job):
    """Ranges are given as strings, whole numbers apart, and are no fixed hyperparameters."""
    search = Search("s", job(eta="0.1"), {"eta": (0.01, 0.3), "max_depth": (2, 6)},
                    ["max_depth"], ["eta"], 9, 2**31 + 5, 600.0)  # fmt: skip

    request = tuning(search, {}, "logloss")

    config = request["HyperParameterTuningJobConfig"]
    (whole,), (real,) = (
        config["ParameterRanges"][f"{kind}ParameterRanges"] for kind in ("Integer", "Continuous")
    )
    assert ("max_depth", "2", "6", "Linear") == tuple(whole.values())
    assert ("eta", "0.01", "0.3", "Logarithmic") == tuple(real.values())
    assert {"eta", "max_depth"}.isdisjoint(
        request["TrainingJobDefinition"]["StaticHyperParameters"]
    )
    assert (9, 3) == (
        config["ResourceLimits"]["MaxNumberOfTrainingJobs"],
        config["ResourceLimits"]["MaxParallelTrainingJobs"],
    )
    assert 5 == config["RandomSeed"]
    assert "Auto" == config["TrainingJobEarlyStoppingType"]


def test_an_image_has_a_version_and_a_region():
    """The SDK's table decides; ``latest`` is an old container, and no name of ours."""
    assert image_uri("1.7-1", "us-east-1").endswith("sagemaker-xgboost:1.7-1")
    with pytest.raises(InvalidSpec, match="is not an XGBoost container"):
        image_uri("latest", "us-east-1")
    with pytest.raises(InvalidSpec, match="Unsupported region"):
        image_uri("3.2-0", "xx-west-9")
