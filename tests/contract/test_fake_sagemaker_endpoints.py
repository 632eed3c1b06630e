"""Endpoints of FakeSageMaker: healthy is what the container would load, and it really answers."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from sagemaker_world import SERVERLESS, Data, archive, open_world, refused

NOT_HEALTHY = (
    "The primary container for production variant AllTraffic did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


@pytest.fixture(scope="module")
def one():
    """A model."""
    return Data(1)


@pytest.fixture(scope="module")
def other():
    """Another model over the same columns."""
    return Data(2)


@pytest.fixture(scope="module")
def world(tmp_path_factory, one):
    """A fake with the instance endpoint ``serving`` and the serverless one ``small``."""
    fake, found = open_world(tmp_path_factory.mktemp("fake"), "endpoints")
    with fake:
        found.begin("serving", one.archive)
        found.begin("small", one.archive, **SERVERLESS)
        assert {"InService"} == {
            found.settled(name)["EndpointStatus"] for name in ("serving", "small")
        }
        yield found


@pytest.fixture(autouse=True)
def _undisturbed(world):
    world.fake.director.reset()


def test_an_endpoint_answers_what_its_model_predicts(world, one) -> None:
    """Predictions through boto3 are the booster's own, from instances and from serverless."""
    for name in ("serving", "small"):
        assert one.want.tolist() == world.predictions(name, one.body).tolist()

    answer = world.runtime.invoke_endpoint(
        EndpointName="serving",
        Body=one.body[:200].rpartition(b"\n")[0],
        ContentType="text/csv",
        Accept="application/json",
    )

    assert "AllTraffic" == answer["InvokedProductionVariant"]
    assert one.want[0] == np.float32(json.loads(answer["Body"].read())["predictions"][0]["score"])


def test_several_files_are_an_averaged_ensemble(world, one, other) -> None:
    """The container takes every top-level file for a model and answers the mean."""
    both = archive({"xgboost-model": one.model, "another-model": other.model, ".hidden": b"x"})
    world.deployed("ensemble", both)
    theirs = other.booster.inplace_predict(one.rows)

    assert pytest.approx((one.want + theirs) / 2) == world.predictions("ensemble", one.body)


@pytest.mark.parametrize(
    ("name", "files", "traceback"),
    [
        ("stray", {"metrics.json": b'{"auc": 0.9}'}, "metrics.json cannot be loaded"),
        ("nested", {}, "IndexError: list index out of range"),
    ],
)
def test_an_archive_that_the_container_cannot_load_fails_its_health_check(
    world, one, name, files, traceback
) -> None:
    """A stray file, or a model in a folder, ends in Failed, with the traceback in the logs; the
    endpoint can only be deleted then.
    """
    model = {"xgboost-model": one.model} if files else {"model/xgboost-model": one.model}
    found = world.deployed(name, archive({**model, **files}))

    assert ("Failed", NOT_HEALTHY) == (found["EndpointStatus"], found["FailureReason"])
    assert any(traceback in line for line in world.lines(f"/aws/sagemaker/Endpoints/{name}"))

    code, words = refused(
        world.sagemaker.update_endpoint, EndpointName=name, EndpointConfigName="serving"
    )

    assert ("ValidationException", True) == (code, "that is Failed" in words)
    assert (
        "ValidationError" == refused(world.runtime.invoke_endpoint, EndpointName=name, Body=b"1")[0]
    )
    world.sagemaker.delete_endpoint(EndpointName=name)
    world.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=name, WaiterConfig={"Delay": 1}
    )


def test_what_is_no_archive_cannot_be_extracted(world) -> None:
    """Bytes that are no gzip tar fail with the platform's own sentence and the URL."""
    found = world.deployed("garbage", b"not a tar")

    assert found["FailureReason"].startswith(
        'Failed to extract model data archive from URL "s3://endpoints/archives/garbage/'
    )


def test_a_model_of_a_newer_xgboost_answers_wrongly_with_200(world, one) -> None:
    """The trap itself: 3.2.0's model in the 1.7-1 container is healthy, answers, and is wrong."""
    found = world.deployed("wrong", one.archive, tag="1.7-1")
    answers = world.predictions("wrong", one.body)

    assert "InService" == found["EndpointStatus"]
    assert one.want.shape == answers.shape
    assert np.abs(one.want - answers).max() > 0.05


def test_an_update_serves_the_old_model_until_the_new_one_answers(world, one, other) -> None:
    """Nothing is refused in the middle of an update, and only one update is made at a time."""
    world.deployed("updated", one.archive)
    world.add_model("updated-2", other.archive)
    world.add_config("updated-2", {"ModelName": "updated-2"})
    world.fake.director.endpoint("hang")
    change = {"EndpointName": "updated", "EndpointConfigName": "updated-2"}
    world.sagemaker.update_endpoint(**change)
    during = world.sagemaker.describe_endpoint(EndpointName="updated")

    assert "Updating" == during["EndpointStatus"]
    assert "updated-2" == during["PendingDeploymentSummary"]["EndpointConfigName"]
    assert one.want.tolist() == world.predictions("updated", one.body).tolist()
    for call, arguments in (
        (world.sagemaker.update_endpoint, change),
        (world.sagemaker.delete_endpoint, {"EndpointName": "updated"}),
    ):
        assert "Cannot update in-progress endpoint" in refused(call, **arguments)[1]
    world.fake.director.release()
    after = world.settled("updated")

    assert ("InService", "updated-2") == (after["EndpointStatus"], after["EndpointConfigName"])
    assert other.want.tolist() == world.predictions("updated", other.body).tolist()


@pytest.mark.parametrize("cause", ["alarm", "health"])
def test_a_failed_update_is_rolled_back(world, one, other, cause) -> None:
    """An alarm, or a model that does not load, brings the endpoint back to what it was, and says
    why.
    """
    name = f"back-{cause}"
    bad = archive({"xgboost-model": other.model, "metrics.json": b"{}"})
    world.deployed(name, one.archive)
    world.add_model(f"{name}-2", other.archive if cause == "alarm" else bad)
    world.add_config(f"{name}-2", {"ModelName": f"{name}-2"})
    if cause == "alarm":
        world.fake.director.alarm("too-many-errors")
    world.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=f"{name}-2",
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "CANARY",
                    "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
                    "WaitIntervalInSeconds": 60,
                }
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "too-many-errors"}]},
        },
    )
    found = world.settled(name)
    reason = "too-many-errors" if cause == "alarm" else "did not pass the ping health check"

    assert ("InService", name) == (found["EndpointStatus"], found["EndpointConfigName"])
    assert reason in found["FailureReason"]
    assert one.want.tolist() == world.predictions(name, one.body).tolist()


def test_a_rollback_can_fail_too(world, one) -> None:
    """Then the old servers still answer, and the endpoint can only be deleted."""
    world.add_config("captive", {"ModelName": "serving"})
    world.sagemaker.create_endpoint(EndpointName="captive", EndpointConfigName="captive")
    world.settled("captive")
    world.fake.director.endpoint("UpdateRollbackFailed", name="captive")
    world.sagemaker.update_endpoint(EndpointName="captive", EndpointConfigName="captive")

    assert "UpdateRollbackFailed" == world.settled("captive")["EndpointStatus"]
    assert one.want.tolist() == world.predictions("captive", one.body).tolist()
    assert (
        "can only be deleted"
        in refused(
            world.sagemaker.update_endpoint, EndpointName="captive", EndpointConfigName="captive"
        )[1]
    )
    world.sagemaker.delete_endpoint(EndpointName="captive")


def test_a_pickle_is_loaded_as_the_container_loads_it(world, one) -> None:
    """The container unpickles before it tries anything else, and so does this."""
    world.deployed("pickled", archive({"xgboost-model": pickle.dumps(one.booster)}))

    assert one.want.tolist() == world.predictions("pickled", one.body).tolist()


def test_without_alarms_nothing_is_rolled_back(world, one) -> None:
    """An alarm that no deployment names takes nothing back."""
    world.fake.director.alarm("too-many-errors")
    world.sagemaker.update_endpoint(EndpointName="serving", EndpointConfigName="serving")

    assert "FailureReason" not in world.settled("serving")


def test_traffic_follows_the_weights_of_the_variants(world, one, other) -> None:
    """Two variants share traffic by weight; weights move while it serves."""
    world.add_model("share-a", one.archive)
    world.add_model("share-b", other.archive)
    world.add_config(
        "shared",
        {"VariantName": "a", "ModelName": "share-a", "InitialVariantWeight": 1.0},
        {"VariantName": "b", "ModelName": "share-b", "InitialVariantWeight": 1.0},
    )
    world.sagemaker.create_endpoint(EndpointName="shared", EndpointConfigName="shared")
    world.settled("shared")

    def invoked(**more):
        return world.runtime.invoke_endpoint(
            EndpointName="shared", Body=b"1,2,3,4", ContentType="text/csv", **more
        )["InvokedProductionVariant"]

    assert {"a", "b"} == {invoked() for _ in range(20)}
    assert "b" == invoked(TargetVariant="b")
    world.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="shared",
        DesiredWeightsAndCapacities=[
            {"VariantName": "a", "DesiredWeight": 0.0},
            {"VariantName": "b", "DesiredInstanceCount": 2},
        ],
    )
    found = world.settled("shared")["ProductionVariants"]

    assert [(0.0, 1), (1.0, 2)] == [
        (item["CurrentWeight"], item["CurrentInstanceCount"]) for item in found
    ]
    assert {"b"} == {invoked() for _ in range(5)}


def test_capture_writes_requests_and_answers_to_s3(world, one) -> None:
    """An instance endpoint with data capture leaves the request and its answer as JSON lines."""
    world.add_config(
        "captured",
        {"ModelName": "serving"},
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": "s3://endpoints/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
        },
    )
    world.sagemaker.create_endpoint(EndpointName="captured", EndpointConfigName="captured")
    found = world.settled("captured")
    world.predictions("captured", b"1,2,3,4")
    (item,) = world.s3.list_objects_v2(Bucket="endpoints", Prefix="capture/captured/AllTraffic/")[
        "Contents"
    ]
    event = json.loads(world.read(f"s3://endpoints/{item['Key']}"))["captureData"]

    assert "Started" == found["DataCaptureConfig"]["CaptureStatus"]
    assert ("CSV", "1,2,3,4") == (
        event["endpointInput"]["encoding"],
        event["endpointInput"]["data"],
    )
    assert 0 < float(event["endpointOutput"]["data"]) < 1
