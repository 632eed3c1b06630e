"""Training jobs of FakeSageMaker: they really train, and leave what the container leaves."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import xgboost
from botocore.exceptions import ClientError
from sagemaker_world import Data, image, open_world

GROUP = "/aws/sagemaker/TrainingJobs"


@pytest.fixture(scope="module")
def data():
    """Rows and labels."""
    return Data()


@pytest.fixture(scope="module")
def world(tmp_path_factory, data):
    """A fake whose bucket holds the rows in four files."""
    fake, found = open_world(tmp_path_factory.mktemp("fake"), "training")
    lines = data.training.split(b"\n")
    for part in range(4):
        found.put(f"rows/{part}.csv", b"\n".join(lines[part * 100 : part * 100 + 100]))
    found.put("one/all.csv", data.training)
    with fake:
        yield found


@pytest.fixture(autouse=True)
def _undisturbed(world):
    world.fake.director.reset()


def model_of(world, job):
    """The one file of a job's archive: (name, bytes)."""
    packed = world.read(job["ModelArtifacts"]["S3ModelArtifacts"])
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        (member,) = tar.getmembers()
        return member.name, tar.extractfile(member).read()


def test_a_job_goes_through_its_states_and_leaves_the_raw_model(world, data) -> None:
    """A job trains on S3 data, tells its states and metrics, and its archive holds every round,
    also those after the best one.
    """
    job = world.trained(
        "raw",
        {"train": "s3://training/one/", "validation": "s3://training/rows/0"},
        HyperParameters={
            "num_round": "60",
            "eta": "1",
            "max_depth": "9",
            "objective": "binary:logistic",
            "eval_metric": "auc,logloss",
            "early_stopping_rounds": "2",
        },
        Tags=[{"Key": "pipeline", "Value": "flowers"}],
    )

    assert ("Completed", "Completed") == (job["TrainingJobStatus"], job["SecondaryStatus"])
    assert ["Starting", "Downloading", "Training", "Uploading", "Completed"] == [
        item["Status"] for item in job["SecondaryStatusTransitions"]
    ]
    assert all("EndTime" in item for item in job["SecondaryStatusTransitions"][:-1])
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert job["TrainingTimeInSeconds"] == job["BillableTimeInSeconds"] >= 1

    name, model = model_of(world, job)
    booster = xgboost.Booster(model_file=bytearray(model))
    rounds = [line for line in world.lines(GROUP, "raw/algo-1-") if line.startswith("[")]

    assert "xgboost-model" == name
    assert b"{L" == model[:2], "3.x writes UBJ for a name without an ending"
    assert len(rounds) == booster.num_boosted_rounds()
    assert rounds[0].startswith("[0]#011train-auc:")
    assert "#011validation-logloss:" in rounds[0]
    assert {"train:auc", "train:logloss", "validation:auc", "validation:logloss"} == {
        item["MetricName"] for item in job["FinalMetricDataList"]
    }
    tags = world.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    assert [{"Key": "pipeline", "Value": "flowers"}] == tags


def test_early_stopping_keeps_the_rounds_after_the_best(world) -> None:
    """The raw output of a 3.x container is not cut: serving it as it is would use worse trees."""
    rows = Data(seed=7)
    noise = np.random.default_rng(1).integers(0, 2, size=(400, 1))
    world.put(
        "noise/a.csv",
        b"\n".join(
            f"{label[0]},{line.partition(b',')[2].decode()}".encode()
            for label, line in zip(noise, rows.training.split(b"\n"), strict=True)
        ),
    )
    job = world.trained(
        "uncut",
        {"train": "s3://training/one/", "validation": "s3://training/noise/"},
        HyperParameters={
            "num_round": "40",
            "objective": "binary:logistic",
            "early_stopping_rounds": "3",
        },
    )
    booster = xgboost.Booster(model_file=bytearray(model_of(world, job)[1]))

    assert booster.best_iteration + 1 + 3 == booster.num_boosted_rounds()


def test_an_older_container_trains_with_its_own_xgboost(world, data) -> None:
    """The image's tag decides the XGBoost: 1.7-1 writes the legacy binary of 1.7.4."""
    job = world.trained("older", {"train": "s3://training/one/"}, tag="1.7-1")

    assert b"binf" == model_of(world, job)[1][:4]


def test_hosts_get_shards_and_the_model_is_trained_on_their_union(world, data) -> None:
    """With a manifest and ShardedByS3Key each host reads its own files, and none is left out."""
    manifest = [{"prefix": "s3://training/rows/"}, "0.csv", "1.csv", "2.csv", "3.csv"]
    world.put("train.manifest", json.dumps(manifest))
    source = {
        "S3DataType": "ManifestFile",
        "S3Uri": "s3://training/train.manifest",
        "S3DataDistributionType": "ShardedByS3Key",
    }
    channel = {
        "ChannelName": "train",
        "ContentType": "text/csv",
        "DataSource": {"S3DataSource": source},
    }
    machines = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 5}
    job = world.trained("hosts", {}, InputDataConfig=[channel], ResourceConfig=machines)
    booster = xgboost.Booster(model_file=bytearray(model_of(world, job)[1]))
    alone = xgboost.train(
        {"objective": "binary:logistic"}, xgboost.DMatrix(data.rows, data.labels), 3
    )
    matrix = xgboost.DMatrix(data.rows)

    assert ["algo-1: channel train: 2 objects"] == world.lines(GROUP, "hosts/algo-1-")[:1]
    assert ["algo-2: channel train: 2 objects"] == world.lines(GROUP, "hosts/algo-2-")
    assert pytest.approx(alone.predict(matrix), abs=1e-5) == booster.predict(matrix)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"objective": "binary:logistic"}, "Missing required hyperparameter: num_round"),
        ({"num_round": "2", "foo": "1"}, "Extraneous hyperparameter found: foo"),
        ({"num_round": "2", "eta": "3.0"}, "Hyperparameter eta: 3.0 is not in [0, 1]"),
    ],
)
def test_the_container_refuses_hyperparameters_in_its_own_words(world, values, words) -> None:
    """A refused hyperparameter fails the job as an AlgorithmError with the container's sentence."""
    name = f"refused-{sum(map(ord, words))}"
    job = world.trained(name, {"train": "s3://training/one/"}, HyperParameters=values)

    assert "Failed" == job["TrainingJobStatus"]
    assert job["FailureReason"].startswith("AlgorithmError: framework error: ")
    assert job["FailureReason"].endswith(f"{words}, exit code: 1")
    assert "ModelArtifacts" not in job


def test_training_data_that_cannot_be_read_fails_the_job(world) -> None:
    """A header among the training rows is refused by the program, an absent object by AWS."""
    world.put("header/a.csv", b"label,a\n1,2\n")
    world.put("gone.manifest", json.dumps([{"prefix": "s3://training/rows/"}, "9.csv"]))
    source = {"S3DataType": "ManifestFile", "S3Uri": "s3://training/gone.manifest"}
    channel = {"ChannelName": "train", "DataSource": {"S3DataSource": source}}
    headed = world.trained("headed", {"train": "s3://training/header/"})
    gone = world.trained("gone", {}, InputDataConfig=[channel])

    assert "begins with a header" in headed["FailureReason"]
    assert gone["FailureReason"].startswith(
        "ClientError: Data download failed:s3://training/rows/9"
    )


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"RoleArn": "arn:aws:iam::999999999999:role/x"}, "ValidationException", "Cross-account"),
        (
            {
                "AlgorithmSpecification": {
                    "TrainingImage": image("latest"),
                    "TrainingInputMode": "File",
                }
            },
            "ValidationException",
            "does not exist here",
        ),
        (
            {"AlgorithmSpecification": {"TrainingImage": "python:3", "TrainingInputMode": "File"}},
            "ValidationException",
            "non-ECR image",
        ),
        ({"EnableManagedSpotTraining": True}, "ValidationException", "MaxWaitTimeInSeconds"),
        (
            {
                "ResourceConfig": {
                    "InstanceType": "ml.none",
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 1,
                }
            },
            "ValidationException",
            "enum value set",
        ),
    ],
)
def test_a_request_that_aws_refuses_starts_nothing(world, changes, code, words) -> None:
    """Role, image, spot and instance type are checked before anything exists."""
    request = world.request("never", {"train": "s3://training/one/"}, **changes)
    with pytest.raises(ClientError, match=words) as refused:
        world.sagemaker.create_training_job(**request)

    assert code == refused.value.response["Error"]["Code"]
    assert [] == world.sagemaker.list_training_jobs(NameContains="never")["TrainingJobSummaries"]


def test_a_name_is_taken_once_and_a_prefix_must_hold_something(world) -> None:
    """A second job of a name is ResourceInUse, whatever it asks; an empty channel is refused."""
    world.fake.director.training("hang")
    request = world.request("twice", {"train": "s3://training/one/"})
    world.sagemaker.create_training_job(**request)
    with pytest.raises(world.sagemaker.exceptions.ResourceInUse, match="must be unique"):
        world.sagemaker.create_training_job(**request)
    with pytest.raises(ClientError, match="No S3 objects found under S3 URL"):
        world.sagemaker.create_training_job(
            **world.request("empty", {"train": "s3://training/nothing/"})
        )
    with pytest.raises(ClientError, match="Requested resource not found"):
        world.sagemaker.describe_training_job(TrainingJobName="empty")
    world.sagemaker.stop_training_job(TrainingJobName="twice")

    assert "Stopped" == world.ended("twice")["SecondaryStatus"]
    with pytest.raises(ClientError, match="in status Stopped"):
        world.sagemaker.stop_training_job(TrainingJobName="twice")


@pytest.mark.parametrize(
    ("kind", "status", "secondary", "reason"),
    [
        ("CapacityError", "Failed", "Failed", "CapacityError: Unable to provision requested ML"),
        ("InsufficientInstanceCapacity", "Failed", "Failed", "InsufficientInstanceCapacity: "),
        ("AlgorithmError", "Failed", "Failed", "AlgorithmError: told so, exit code: 1"),
        ("MaxWaitTimeExceeded", "Stopped", "MaxWaitTimeExceeded", ""),
        ("MaxRuntimeExceeded", "Stopped", "MaxRuntimeExceeded", ""),
        ("hang", "Stopped", "MaxRuntimeExceeded", ""),
    ],
)
def test_a_job_fails_as_it_was_told(world, kind, status, secondary, reason) -> None:
    """Every way in which AWS ends a job can be had, with AWS's states and texts."""
    world.fake.director.training(kind, reason="told so" if kind == "AlgorithmError" else "")
    job = world.trained(
        f"fails-{kind}",
        {"train": "s3://training/one/"},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 600},
    )

    assert (status, secondary) == (job["TrainingJobStatus"], job["SecondaryStatus"])
    assert job.get("FailureReason", "").startswith(reason)
    assert [] == world.fake.director.plans()


def test_an_interrupted_spot_job_starts_again_from_the_first_round(world) -> None:
    """Losing spot capacity is told, costs what was done, and ends in a whole model all the same."""
    world.fake.director.training("Interrupted")
    job = world.trained(
        "spot",
        {"train": "s3://training/one/"},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900},
    )
    states = [item["Status"] for item in job["SecondaryStatusTransitions"]]
    rounds = [line[:3] for line in world.lines(GROUP, "spot/") if line.startswith("[")]

    assert "Completed" == job["TrainingJobStatus"]
    assert ["Training", "Interrupted", "Restarting", "Downloading"] == states[2:6]
    assert ["[0]", "[1]", "[2]"] == rounds[-3:]
    assert 2 == rounds.count("[0]")
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


def test_account_limits_refuse_at_creation(world) -> None:
    """A quota is ResourceLimitExceeded with AWS's sentence, and nothing is started."""
    world.fake.director.limit("ml.m5.large for training job usage", 0)
    request = world.request("limited", {"train": "s3://training/one/"})
    with pytest.raises(world.sagemaker.exceptions.ResourceLimitExceeded, match="account-level"):
        world.sagemaker.create_training_job(**request)


def test_lists_are_paged_filtered_and_ordered(world) -> None:
    """Pages follow each other without a gap; filters and orders are AWS's."""
    world.fake.director.training("CapacityError", times=5)
    names = [f"paged-{number}" for number in range(5)]
    for name in names:
        world.trained(name, {"train": "s3://training/one/"})
    pages = world.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains="paged",
        StatusEquals="Failed",
        SortBy="Name",
        SortOrder="Descending",
        PaginationConfig={"PageSize": 2},
    )
    sizes = [[item["TrainingJobName"] for item in page["TrainingJobSummaries"]] for page in pages]

    assert [2, 2, 1] == [len(page) for page in sizes]
    assert names[::-1] == [name for page in sizes for name in page]
    with pytest.raises(ClientError, match="pagination token"):
        world.sagemaker.list_training_jobs(NextToken="no token of ours")
