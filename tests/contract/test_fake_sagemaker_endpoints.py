"""Endpoints of FakeSageMaker: healthy is what the container would load, and it really answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from botocore.exceptions import ClientError
from sagemaker_world import Data, archive, open_world

SERVERLESS = {"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}
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
        assert "InService" == found.deployed("serving", one.archive)["EndpointStatus"]
        assert "InService" == found.deployed("small", one.archive, **SERVERLESS)["EndpointStatus"]
        yield found


@pytest.fixture(autouse=True)
def _undisturbed(world):
    world.fake.director.reset()


def refused(call, **arguments):
    """(code, message) of a call that must be refused."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


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


@pytest.mark.parametrize(
    ("variants", "more", "words"),
    [
        ([{"ServerlessConfig": {"MemorySizeInMB": 1500, "MaxConcurrency": 5}}], {}, "1500 MB"),
        ([{"ServerlessConfig": {"MemorySizeInMB": 8192, "MaxConcurrency": 5}}], {}, "less than"),
        ([{"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 201}}], {}, "200"),
        ([{**SERVERLESS, "InstanceType": "ml.m5.large"}], {}, "together with ServerlessConfig"),
        ([SERVERLESS, {**SERVERLESS, "VariantName": "b"}], {}, "only one production variant"),
        (
            [SERVERLESS],
            {
                "DataCaptureConfig": {
                    "EnableCapture": True,
                    "InitialSamplingPercentage": 100,
                    "DestinationS3Uri": "s3://endpoints/capture",
                    "CaptureOptions": [{"CaptureMode": "Input"}],
                }
            },
            "Data capture is not supported",
        ),
        (
            [SERVERLESS],
            {"ShadowProductionVariants": [{"VariantName": "s", "ModelName": "serving"}]},
            "Shadow variants are not supported",
        ),
        ([{"ModelName": "absent"}], {}, "Could not find model"),
    ],
)
def test_what_serverless_and_instances_cannot_do_is_refused(world, variants, more, words) -> None:
    """A configuration that AWS refuses is refused, and none exists afterwards."""
    whole = [{"ModelName": "serving", **variant} for variant in variants]
    code, told = refused(lambda: world.add_config("never", *whole, **more))

    assert ("ValidationException", True) == (code, words in told), told
    assert (
        "Could not find endpoint configuration"
        in refused(world.sagemaker.describe_endpoint_config, EndpointConfigName="never")[1]
    )


def test_an_update_keeps_variant_names_and_never_makes_instances_serverless(world) -> None:
    """Serverless becomes instances, but not the other way, and a variant keeps its name."""
    world.add_config("renamed", {"ModelName": "serving", "VariantName": "other"})
    update = world.sagemaker.update_endpoint

    assert (
        "must have the names"
        in refused(update, EndpointName="serving", EndpointConfigName="renamed")[1]
    )
    assert (
        "to a serverless endpoint is not supported"
        in refused(update, EndpointName="serving", EndpointConfigName="small")[1]
    )
    assert (
        "serverless"
        in refused(
            world.sagemaker.update_endpoint_weights_and_capacities,
            EndpointName="small",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredWeight": 1.0}],
        )[1]
    )
    rolling = {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1},
            "WaitIntervalInSeconds": 0,
        }
    }

    assert (
        "Rolling deployments"
        in refused(
            update, EndpointName="small", EndpointConfigName="small", DeploymentConfig=rolling
        )[1]
    )


def test_names_are_taken_once(world, one) -> None:
    """A second model, configuration or endpoint of a name is refused, and the first one stays."""
    create = world.sagemaker.create_endpoint
    for call in (
        lambda: world.add_model("serving", one.archive),
        lambda: world.add_config("serving", {"ModelName": "serving"}),
        lambda: create(EndpointName="serving", EndpointConfigName="small"),
    ):
        code, words = refused(call)

        assert ("ValidationException", True) == (code, "Cannot create already existing" in words)
    found = world.sagemaker.describe_endpoint(EndpointName="serving")

    assert "serving" == found["EndpointConfigName"]


def test_refused_invocations_are_told_as_sagemaker_runtime_tells_them(world) -> None:
    """Absent endpoint, a refusal by the model, a model not ready, and bodies that are too large."""
    ask = world.runtime.invoke_endpoint
    one = {"EndpointName": "serving", "ContentType": "text/csv", "Body": b"1,2,3,4"}

    assert ("ValidationError", "Endpoint absent of account 123456789012 not found.") == refused(
        ask, **{**one, "EndpointName": "absent"}
    )
    with pytest.raises(world.runtime.exceptions.ModelError) as error:
        ask(**{**one, "Body": b"1,2,3,4,5"})
    told = error.value.response

    assert (424, 400) == (told["ResponseMetadata"]["HTTPStatusCode"], told["OriginalStatusCode"])
    assert "5 columns" in told["OriginalMessage"]
    assert told["Error"]["Message"].startswith("Received client error (400) from primary")
    world.fake.director.not_ready("serving")
    with pytest.raises(world.runtime.exceptions.ModelNotReadyException):
        ask(**one)
    world.fake.director.model_error("serving", status=500, message="out of memory")
    with pytest.raises(world.runtime.exceptions.ModelError, match="out of memory"):
        ask(**one)

    assert 200 == ask(**one)["ResponseMetadata"]["HTTPStatusCode"]
    assert "413" == refused(ask, **{**one, "EndpointName": "small", "Body": b"1" * (5 << 20)})[0]
    assert "413" == refused(ask, **{**one, "Body": b"1" * (7 << 20)})[0]


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


def test_capacity_and_limits_fail_as_aws_fails_them(world) -> None:
    """No capacity is a Failed endpoint with its reason; a quota refuses before there is one."""
    world.fake.director.endpoint("InsufficientInstanceCapacity", name="short")
    world.sagemaker.create_endpoint(EndpointName="short", EndpointConfigName="serving")
    found = world.settled("short")

    assert "Failed" == found["EndpointStatus"]
    assert found["FailureReason"].startswith("InsufficientInstanceCapacity")
    world.fake.director.limit("serverless concurrency", 7)
    code, words = refused(
        world.sagemaker.create_endpoint, EndpointName="more", EndpointConfigName="small"
    )

    assert "ResourceLimitExceeded" == code
    assert "is 7 Instances, with current utilization of 5" in words
    assert (
        "Could not find endpoint"
        in refused(world.sagemaker.describe_endpoint, EndpointName="more")[1]
    )
