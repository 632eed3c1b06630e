"""FakeSageMaker's protocol and faults: what reaches it is judged, what goes wrong is planned."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from emulators import moto_url
from hypothesis import given
from hypothesis import strategies as st
from sagemaker_world import REGION, ROLE, Data, World, image, open_world

from ml_control.testing.sagemaker.protocol import check_request, service
from ml_control.testing.sagemaker.refused import Refused


@pytest.fixture(scope="module")
def data():
    """A model."""
    return Data(4)


@pytest.fixture(scope="module")
def world(tmp_path_factory, data):
    """A fake with a model and a serverless configuration, both named ``one``."""
    fake, found = open_world(tmp_path_factory.mktemp("fake"), "faults", seed=11)
    with fake:
        found.add_model("one", data.archive)
        serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
        found.add_config("one", {"ModelName": "one", "ServerlessConfig": serverless})
        yield found


@pytest.fixture(autouse=True)
def _undisturbed(world):
    world.fake.director.reset()


def post(world, what, **arguments):
    """A call of the director over HTTP."""
    request = urllib.request.Request(
        f"{world.fake.url}/_fake/{what}", json.dumps(arguments).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())["result"]


@pytest.mark.parametrize(
    ("operation", "request_", "code", "words"),
    [
        (
            "DescribeModel",
            {},
            "ValidationException",
            "Value null at 'modelName' failed to satisfy constraint: Member must not be null",
        ),
        ("DescribeModel", {"ModelName": 7}, "SerializationException", "read as string"),
        ("DescribeModel", {"ModelName": "a_b"}, "ValidationException", "regular expression"),
        ("DescribeModel", {"ModelName": "a", "More": 1}, "ValidationException", "Unknown member"),
        ("ListModels", {"MaxResults": 0}, "ValidationException", "greater than or equal to 1"),
        (
            "ListModels",
            {"SortOrder": "Up"},
            "ValidationException",
            "enum value set: [Ascending, Descending]",
        ),
        ("CreateEverything", {}, "UnknownOperationException", "no operation"),
        ("ListActions", {}, "UnknownOperationException", "not implemented"),
    ],
)
def test_a_request_outside_the_service_model_is_refused(
    world, operation, request_, code, words
) -> None:
    """Types, required members, patterns, ranges, enumerations: as botocore's model has them, also
    for a client that checks nothing itself.
    """
    request = urllib.request.Request(
        world.fake.url,
        json.dumps(request_).encode(),
        {"X-Amz-Target": f"SageMaker.{operation}"},
        method="POST",
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value as answer:
        told = json.loads(answer.read())

    assert (400, code) == (answer.code, told["__type"])
    assert words in told["message"]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "EndpointName": st.one_of(st.text(max_size=70), st.integers(), st.none()),
            "EndpointConfigName": st.one_of(st.text(max_size=70), st.booleans()),
            "Tags": st.lists(
                st.fixed_dictionaries(
                    {}, optional={"Key": st.text(max_size=3), "Value": st.integers()}
                ),
                max_size=2,
            ),
            "Unknown": st.integers(),
        },
    )
)
def test_nothing_that_botocore_refuses_is_taken(request_) -> None:
    """Whatever a client of boto3 would not send, the fake does not take from others either."""
    from botocore.validate import ParamValidator

    shape = service("sagemaker").operation_model("CreateEndpoint").input_shape
    bad = {key: value for key, value in request_.items() if value is not None}
    if ParamValidator().validate(bad, shape).has_errors():
        with pytest.raises(Refused):
            check_request("sagemaker", "CreateEndpoint", bad)


def test_throttling_is_a_share_of_calls_chosen_by_the_seed(tmp_path) -> None:
    """The same seed throttles the same calls; adaptive retries get through all of them."""
    seen = []
    for run in range(2):
        bucket = f"throttle-{run}-{tmp_path.name[-3:].strip('_')}"
        fake, world = open_world(tmp_path / str(run), bucket, seed=3)
        with fake:
            fake.director.throttle(0.3)
            once = world.client("sagemaker", attempts=1)
            codes = []
            for _ in range(40):
                try:
                    once.list_models()
                    codes.append("")
                except ClientError as error:
                    codes.append(error.response["Error"]["Code"])
            seen.append(codes)
            patient = world.client("sagemaker", attempts=10)
            for _ in range(5):
                patient.list_models()

    assert seen[0] == seen[1]
    assert 5 <= seen[0].count("ThrottlingException") <= 20
    assert {"", "ThrottlingException"} == set(seen[0])


def test_a_creation_that_succeeds_while_the_caller_times_out(world) -> None:
    """The endpoint is there although nobody was told; a retry learns that it exists."""
    world.fake.director.lose_answer("CreateEndpoint", hang=2.0)
    hasty = world.client("sagemaker", attempts=1, read_timeout=0.5)
    create = {"EndpointName": "e", "EndpointConfigName": "one"}
    with pytest.raises(ReadTimeoutError):
        hasty.create_endpoint(**create)

    assert "Creating" == world.sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"]
    with pytest.raises(ClientError, match="Cannot create already existing endpoint"):
        world.sagemaker.create_endpoint(**create)


def test_a_dropped_answer_is_retried_by_boto3_and_found_done(world) -> None:
    """Without hanging the connection just ends: boto3 retries by itself and is told it exists."""
    world.fake.director.lose_answer("CreateModel", name="two")
    with pytest.raises(ClientError, match="already existing model"):
        world.sagemaker.create_model(
            ModelName="two",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": image(),
                "ModelDataUrl": f"s3://{world.bucket}/archives/one/model.tar.gz",
            },
        )

    assert 1 == len(world.sagemaker.list_models(NameContains="two")["Models"])
    assert 2 == world.fake.director.calls()["CreateModel"]


def test_the_director_answers_over_http(world) -> None:
    """Another process plans failures, sees them used up, and reads what was called."""
    post(world, "fail", operation="CreateEndpoint", code="ResourceLimitExceeded", message="full")
    with pytest.raises(world.sagemaker.exceptions.ResourceLimitExceeded, match="full"):
        world.sagemaker.create_endpoint(EndpointName="f", EndpointConfigName="one")

    assert [] == post(world, "plans")
    assert 1 == post(world, "calls")["CreateEndpoint"]
    post(world, "delay", share=1.0, seconds=0.3)
    began = time.monotonic()
    world.sagemaker.list_models()

    assert time.monotonic() - began >= 0.3
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(world, "training", kind="rain")
    with refused.value as answer:
        assert b"not 'rain'" in answer.read()


def test_tags_are_added_listed_and_removed(world, data) -> None:
    """Tags belong to an ARN, and go with what they are on."""
    world.add_model("tagged", data.archive)
    arn = world.sagemaker.describe_model(ModelName="tagged")["ModelArn"]
    world.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}])
    world.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}])
    world.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])

    assert [{"Key": "b", "Value": "2"}] == world.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    world.sagemaker.delete_model(ModelName="tagged")
    with pytest.raises(ClientError, match="Could not find resource"):
        world.sagemaker.list_tags(ResourceArn=arn)


def test_the_clock_dates_what_is_told(tmp_path, data) -> None:
    """Times in answers are those of the clock that was given."""
    fake, world = open_world(tmp_path / "fake", "clocked", clock=lambda: 1_000_000.0)
    with fake:
        world.add_model("dated", data.archive)
        created = world.sagemaker.describe_model(ModelName="dated")["CreationTime"]

    assert 1_000_000.0 == created.timestamp()


def test_logs_of_nothing_are_absent(world) -> None:
    """A group appears with its first line; before that CloudWatch knows none."""
    with pytest.raises(world.logs.exceptions.ResourceNotFoundException):
        world.logs.describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/none")

    none = "/aws/sagemaker/Endpoints/none"
    assert [] == world.logs.describe_log_groups(logGroupNamePrefix=none)["logGroups"]


def test_logs_of_ones_own_are_written_and_read(world) -> None:
    """A group and a stream are made once; events are kept in order, and out of order refused."""
    names = {"logGroupName": "/own/metrics", "logStreamName": "one"}
    with pytest.raises(world.logs.exceptions.ResourceNotFoundException):
        world.logs.put_log_events(**names, logEvents=[{"timestamp": 1, "message": "a"}])
    world.logs.create_log_group(logGroupName="/own/metrics", tags={"project": "own"})
    world.logs.put_retention_policy(logGroupName="/own/metrics", retentionInDays=30)
    world.logs.create_log_stream(**names)
    with pytest.raises(world.logs.exceptions.ResourceAlreadyExistsException):
        world.logs.create_log_stream(**names)
    events = [{"timestamp": at, "message": f"at {at}"} for at in (1, 2)]
    world.logs.put_log_events(**names, logEvents=events)
    with pytest.raises(world.logs.exceptions.InvalidParameterException):
        world.logs.put_log_events(**names, logEvents=events[::-1])

    read = world.logs.get_log_events(**names, startFromHead=True)["events"]
    assert ["at 1", "at 2"] == [event["message"] for event in read]


def test_closing_ends_every_process(tmp_path, data) -> None:
    """Whatever serves or trains when the fake is closed is gone with it, and so is its port."""
    fake, world = open_world(tmp_path / "fake", "closing-all")
    with fake:
        world.deployed("one", data.archive)
        world.put("rows/a.csv", data.training)
        world.fake.director.training("hang")
        world.sagemaker.create_training_job(
            **world.request("job", {"train": "s3://closing-all/rows/"})
        )
        world.sagemaker.create_endpoint(EndpointName="two", EndpointConfigName="one")
        children = [
            child
            for child in psutil.Process().children(recursive=True)
            if str(tmp_path) in " ".join(child.as_dict(["cmdline"])["cmdline"] or ())
        ]

        assert children
    _, alive = psutil.wait_procs(children, timeout=5)

    assert [] == alive
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(fake.url, timeout=5)


def test_it_runs_as_a_process_that_ends_with_its_parent(tmp_path, data) -> None:
    """``python -m ml_control.testing.sagemaker`` prints its address, serves any number of clients,
    and takes its servers with it when it ends.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ml_control.testing.sagemaker", "--s3-endpoint", moto_url()),
            *("--home", str(tmp_path), "--region", REGION, "--speed", "2000", "--with-parent"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().strip()
        world = World(_Address(address), "processes")
        world.s3.create_bucket(
            Bucket="processes", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        found = world.deployed("one", data.archive)
        children = psutil.Process(process.pid).children(recursive=True)

        assert "InService" == found["EndpointStatus"]
        assert data.want.tolist() == world.predictions("one", data.body).tolist()
        assert children
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=10)

        assert [] == alive
    finally:
        process.kill()
        process.communicate()


class _Address:
    """What a world needs of a fake that runs elsewhere."""

    def __init__(self, url):
        self.url = url
