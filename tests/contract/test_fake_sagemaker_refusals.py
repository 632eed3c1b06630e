"""What FakeSageMaker refuses of endpoints and invocations, as AWS refuses it."""

from __future__ import annotations

import pytest
from sagemaker_world import SERVERLESS, Data, open_world, refused


@pytest.fixture(scope="module")
def one():
    """A model."""
    return Data(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory, one):
    """A fake with the instance endpoint ``serving`` and the serverless one ``small``."""
    fake, found = open_world(tmp_path_factory.mktemp("fake"), "refusals")
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
                    "DestinationS3Uri": "s3://refusals/capture",
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
