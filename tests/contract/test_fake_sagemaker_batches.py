"""Tuning and transform jobs of FakeSageMaker: real children, real answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from botocore.exceptions import ClientError
from sagemaker_world import Data, archive, open_world, until

TRANSFORM = {
    "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    "TransformOutput": {"S3OutputPath": "s3://batches/scores/", "AssembleWith": "Line"},
}


@pytest.fixture(scope="module")
def data():
    """Rows and a model."""
    return Data(3)


@pytest.fixture(scope="module")
def world(tmp_path_factory, data):
    """A fake whose bucket holds training data and rows to score."""
    fake, found = open_world(tmp_path_factory.mktemp("fake"), "batches", seed=5)
    found.put("train/a.csv", data.training)
    lines = data.body.split(b"\n")
    found.put("rows/day/0.csv", b"\n".join(lines[:150]))
    found.put("rows/day/1.csv", b"\n".join(lines[150:]) + b"\n")
    with fake:
        found.add_model("scorer", data.archive)
        yield found


@pytest.fixture(autouse=True)
def _undisturbed(world):
    world.fake.director.reset()


def tuning(world, name, jobs, parallel=1, **changes):
    """A CreateHyperParameterTuningJob request."""
    definition = world.request("", {"train": "s3://batches/train/"})
    definition.pop("TrainingJobName")
    definition["StaticHyperParameters"] = definition.pop("HyperParameters")
    integer = {"Name": "max_depth", "MinValue": "2", "MaxValue": "6"}
    real = {
        "Name": "eta",
        "MinValue": "0.01",
        "MaxValue": "0.9",
        "ScalingType": "Logarithmic",
    }
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "train:auc"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": jobs,
                "MaxParallelTrainingJobs": parallel,
            },
            "ParameterRanges": {
                "IntegerParameterRanges": [integer],
                "ContinuousParameterRanges": [real],
            },
            **changes,
        },
        "TrainingJobDefinition": definition,
    }


def tuned(world, name):
    """A tuning job once it has ended."""
    return until(
        lambda: world.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        ),
        lambda job: job["HyperParameterTuningJobStatus"] not in {"InProgress", "Stopping"},
    )


def transformed(world, name, uri, **changes):
    """Run a transform job to its end."""
    kind = changes.pop("S3DataType", "S3Prefix")
    source = {"S3DataSource": {"S3DataType": kind, "S3Uri": uri}}
    world.sagemaker.create_transform_job(
        TransformJobName=name,
        **{
            "ModelName": "scorer",
            "TransformInput": {
                "DataSource": source,
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            **TRANSFORM,
            **changes,
        },
    )
    return until(
        lambda: world.sagemaker.describe_transform_job(TransformJobName=name),
        lambda job: job["TransformJobStatus"] not in {"InProgress", "Stopping"},
    )


def test_a_tuning_job_trains_within_the_ranges_and_names_the_best(world) -> None:
    """As many real training jobs as asked for, each inside the ranges; the best one is told."""
    world.sagemaker.create_hyper_parameter_tuning_job(**tuning(world, "tune", 3, parallel=2))
    job = tuned(world, "tune")
    children = world.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="tune",
        SortBy="FinalObjectiveMetricValue",
        SortOrder="Descending",
    )["TrainingJobSummaries"]
    values = [child["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for child in children]
    best = job["BestTrainingJob"]

    assert "Completed" == job["HyperParameterTuningJobStatus"]
    assert 3 == len(children) == job["TrainingJobStatusCounters"]["Completed"]
    assert sorted(values, reverse=True) == values
    assert values[0] == best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    for child in children:
        drawn = child["TunedHyperParameters"]

        assert 2 <= int(drawn["max_depth"]) <= 6
        assert 0.01 <= float(drawn["eta"]) <= 0.9
    described = world.sagemaker.describe_training_job(TrainingJobName=best["TrainingJobName"])

    assert best["TunedHyperParameters"].items() <= described["HyperParameters"].items()
    assert job["HyperParameterTuningJobArn"] == described["TuningJobArn"]
    assert values[0] in {item["Value"] for item in described["FinalMetricDataList"]}


def test_a_tuning_job_gives_up_when_nothing_succeeds(world) -> None:
    """After five failures and no success it ends as Failed, with AWS's sentence."""
    world.fake.director.training("CapacityError", times=9, name="hopeless-*")
    world.sagemaker.create_hyper_parameter_tuning_job(**tuning(world, "hopeless", 8))
    job = tuned(world, "hopeless")

    assert "Failed" == job["HyperParameterTuningJobStatus"]
    assert "No training job succeeded after 5 attempts" in job["FailureReason"]
    assert "BestTrainingJob" not in job


def test_stopping_a_tuning_job_stops_its_training_jobs(world) -> None:
    """What runs for it is stopped, and nothing more is started."""
    world.fake.director.training("hang", times=9, name="stopped-*")
    world.sagemaker.create_hyper_parameter_tuning_job(**tuning(world, "stopped", 8, parallel=2))
    until(
        lambda: world.sagemaker.list_training_jobs(NameContains="stopped-")["TrainingJobSummaries"],
        lambda found: len(found) == 2,
    )
    world.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    job = tuned(world, "stopped")

    assert "Stopped" == job["HyperParameterTuningJobStatus"]
    assert {
        "Completed": 0,
        "InProgress": 0,
        "RetryableError": 0,
        "NonRetryableError": 0,
        "Stopped": 2,
    } == job["TrainingJobStatusCounters"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "auc"}},
            "isn't valid",
        ),
        (
            {"ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 2}},
            "must not be greater",
        ),
        (
            {
                "ParameterRanges": {
                    "IntegerParameterRanges": [
                        {"Name": "max_depth", "MinValue": "9", "MaxValue": "2"}
                    ]
                }
            },
            "greater than its MaxValue",
        ),
        (
            {
                "ParameterRanges": {
                    "IntegerParameterRanges": [
                        {"Name": "num_round", "MinValue": "1", "MaxValue": "2"}
                    ]
                }
            },
            "more than once",
        ),
        ({"ParameterRanges": {}}, "At least one"),
    ],
)
def test_a_tuning_job_that_cannot_be_is_refused(world, changes, words) -> None:
    """Objective, limits and ranges are checked before anything trains."""
    with pytest.raises(ClientError, match=words):
        world.sagemaker.create_hyper_parameter_tuning_job(**tuning(world, "never", 2, **changes))

    assert (
        []
        == world.sagemaker.list_hyper_parameter_tuning_jobs(NameContains="never")[
            "HyperParameterTuningJobSummaries"
        ]
    )


def test_the_seed_draws_the_same_parameters_again() -> None:
    """Ranges and seed decide the trials; another seed gives others."""
    import random

    from ml_control.testing.sagemaker.ranges import draw

    ranges = {
        "IntegerParameterRanges": [{"Name": "max_depth", "MinValue": "1", "MaxValue": "99"}],
        "ContinuousParameterRanges": [{"Name": "eta", "MinValue": "0", "MaxValue": "1"}],
        "CategoricalParameterRanges": [{"Name": "booster", "Values": ["gbtree", "dart"]}],
    }

    assert draw(ranges, random.Random(1)) == draw(ranges, random.Random(1))
    assert draw(ranges, random.Random(1)) != draw(ranges, random.Random(2))


@pytest.mark.parametrize("kind", ["S3Prefix", "ManifestFile"])
def test_a_transform_job_answers_every_object(world, data, kind) -> None:
    """Each input object has an output of its name and ``.out``, one line for each of its rows."""
    uri = "s3://batches/rows/day/"
    if kind == "ManifestFile":
        uri = world.put(
            "day.manifest",
            json.dumps([{"prefix": "s3://batches/rows/"}, "day/0.csv", "day/1.csv"]),
        )
    folder = f"s3://batches/scores/{kind}"
    output = {"S3OutputPath": folder, "AssembleWith": "Line", "Accept": "text/csv"}
    job = transformed(world, f"score-{kind}", uri, TransformOutput=output, S3DataType=kind)
    place = folder if kind == "S3Prefix" else f"{folder}/day"
    answers = [
        float(line) for part in range(2) for line in world.read(f"{place}/{part}.csv.out").split()
    ]

    assert "Completed" == job["TransformJobStatus"], job
    assert data.want.tolist() == np.array(answers, np.float32).tolist()


def test_a_transform_job_fails_with_its_reason_in_the_logs(world, data) -> None:
    """A row that the model refuses, and a model that does not load, fail the job."""
    world.put("bad/0.csv", b"1,2,3,4,5\n")
    world.add_model("broken", archive({"xgboost-model": b"nothing"}))
    refused = transformed(world, "refused", "s3://batches/bad/")
    broken = transformed(world, "broken", "s3://batches/rows/day/", ModelName="broken")
    lines = world.lines("/aws/sagemaker/TransformJobs")

    assert "AlgorithmError: See job logs for more information" == refused["FailureReason"]
    assert "AlgorithmError: See job logs for more information" == broken["FailureReason"]
    assert any("Bad HTTP status received from algorithm: 400" in line for line in lines)
    assert any("cannot be loaded" in line for line in lines)


def test_a_transform_job_fails_or_stops_as_it_was_told(world) -> None:
    """Capacity fails it; one that hangs can be stopped; a name is taken once."""
    world.fake.director.transform("CapacityError")
    short = transformed(world, "short", "s3://batches/rows/day/")
    world.fake.director.transform("hang")
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://batches/rows/day/"}}
    request = {
        "TransformJobName": "long",
        "ModelName": "scorer",
        "TransformInput": {"DataSource": source, "ContentType": "text/csv"},
        **TRANSFORM,
    }
    world.sagemaker.create_transform_job(**request)
    with pytest.raises(world.sagemaker.exceptions.ResourceInUse):
        world.sagemaker.create_transform_job(**request)
    world.sagemaker.stop_transform_job(TransformJobName="long")
    until(
        lambda: world.sagemaker.describe_transform_job(TransformJobName="long"),
        lambda job: job["TransformJobStatus"] == "Stopped",
    )

    assert short["FailureReason"].startswith("CapacityError")
    assert ["long", "short"] == sorted(
        item["TransformJobName"]
        for item in world.sagemaker.list_transform_jobs(MaxResults=50)["TransformJobSummaries"]
        if item["TransformJobName"] in {"long", "short"}
    )
