"""Endpoints on SageMaker when everything goes wrong: creations, updates, deployers, people."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hosted import QUICK, WAIT, booster, put, soon

from ml_control.core.artifact import pack
from ml_control.core.digests import sha256
from ml_control.errors import Conflict, InvalidSpec, PlatformFailed, Retryable
from ml_control.spec import Endpoint

INSTANCES = Endpoint.model_validate(
    {"instances": {"type": "ml.m5.large", "count": 2, "capture": 0.1,
                   "rollback": {"alarms": ["late"], "canary": 0.5, "bake": "1 min"}}}
)  # fmt: skip


@pytest.fixture(scope="module")
def stray():
    """An archive with a file beside the model, which keeps the container from starting."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in (("xgboost-model", booster(3)), ("metrics.json", b'{"auc": 0.9}')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def calls(hosted, operation):
    """How often an operation was called, whoever did."""
    return hosted.director.calls().get(operation, 0)


def alone(hosted, state, archive):
    """Whether exactly this deployment is there, of all that SageMaker and the lake keep."""
    left = hosted.left()
    return (
        [hosted.real("income-a")] == left["endpoints"]
        and [state.detail["config"]] == left["configs"]
        and 1 == len(left["models"])
        and [f"artifacts/_served/income-a/{sha256(archive)}/model.tar.gz"] == left["archives"]
    )


EMPTY = {"endpoints": [], "configs": [], "models": [], "archives": []}


def test_an_endpoint_that_fails_its_health_check_says_why_and_leaves_nothing(hosted, one, stray):
    """The error has SageMaker's reason and the log's lines, read before the endpoint is removed;
    the other variant is untouched, and the next deployment works.
    """
    plane = hosted.control_plane()
    other = put(plane, one, "income-b")
    before = hosted.left()

    with pytest.raises(PlatformFailed, match="did not pass the ping health check") as caught:
        put(plane, stray, version="v9")

    assert "metrics.json cannot be loaded" in caught.value.reason
    assert "ml-control verify" in caught.value.next
    assert before == hosted.left()
    assert other == plane.describe("income-b")
    state = hosted.control_plane().describe("income-a")
    assert ("Failed", "v9") == (state.state, state.model_version)
    assert "InService" == put(plane, one).state


def test_what_hangs_is_given_up_and_adopted_by_the_next(hosted, one):
    """Past its time a creation fails with SageMaker's own word; the next deployment takes it up."""
    plane = hosted.control_plane(replace(QUICK, give_up=0.3))
    hosted.director.endpoint("hang", name=hosted.real("*"))
    before = calls(hosted, "CreateEndpoint")

    with pytest.raises(PlatformFailed, match=r"did not answer within 0\.5 s .*Creating"):
        put(plane, one, timeout=0.5)

    assert "Creating" == plane.describe("income-a").state
    with pytest.raises(Retryable, match="not serving"):
        plane.invoke("income-a", b"1,2,3,4", archive=sha256(one))
    hosted.director.release()
    state = put(hosted.control_plane(), one)
    assert 1 == calls(hosted, "CreateEndpoint") - before
    assert alone(hosted, state, one)


@pytest.mark.parametrize("kind", ["CapacityError", "InsufficientInstanceCapacity"])
def test_a_lack_of_capacity_may_be_tried_again(hosted, one, kind):
    """It is no fault of the model: Retryable, nothing is left, and later it works."""
    plane = hosted.control_plane()
    hosted.director.endpoint(kind, name=hosted.real("*"))

    with pytest.raises(Retryable, match=kind):
        put(plane, one)

    assert EMPTY == hosted.left()
    assert "InService" == put(plane, one).state


def test_a_quota_is_told_with_its_step(hosted, one):
    """What AWS refuses at once leaves nothing behind either."""
    hosted.director.limit("endpoints", 0)
    try:
        with pytest.raises(PlatformFailed, match="ResourceLimitExceeded") as caught:
            put(hosted.control_plane(), one)
    finally:
        hosted.director.reset()

    assert "Service Quotas" in caught.value.next
    assert EMPTY == hosted.left()


@pytest.mark.parametrize("attempts", [1, 4], ids=["asked once", "asked again"])
def test_calls_that_are_done_and_never_answered_make_nothing_twice(hosted, one, another, attempts):
    """Each call that creates or updates is done, and its caller sees the connection end."""
    plane = hosted.control_plane(max_attempts=attempts)
    creating = ("CreateModel", "CreateEndpointConfig", "CreateEndpoint")
    for operation in creating:
        hosted.director.lose_answer(operation)

    state = put(plane, one)

    assert alone(hosted, state, one)
    hosted.director.lose_answer("UpdateEndpoint")
    state = put(plane, another, version="v2")
    assert ("InService", "v2") == (state.state, state.model_version)
    assert [hosted.real("income-a")] == hosted.left()["endpoints"]
    hosted.director.lose_answer("DeleteEndpoint")
    plane.stop("income-a")
    assert EMPTY == hosted.left()


def test_a_creation_slower_than_its_caller_is_adopted(hosted, one):
    """The caller's read times out while SageMaker goes on: there is one endpoint in the end."""
    plane = hosted.control_plane(read_timeout=0.5, max_attempts=1)
    before = calls(hosted, "CreateEndpoint")
    hosted.director.lose_answer("CreateEndpoint", hang=1.0)

    state = put(plane, one)

    assert 1 == calls(hosted, "CreateEndpoint") - before
    assert alone(hosted, state, one)


def test_a_successor_takes_up_what_a_killed_deployer_began(hosted, one):
    """kill -9 in mid-creation: the next deployer adopts it, without a second creation."""
    hosted.director.endpoint("hang", name=hosted.real("*"))
    before = calls(hosted, "CreateEndpoint")
    (hosted.place / "archive").write_bytes(one)
    (hosted.place / "settings.json").write_text(hosted.settings.model_dump_json())
    script = (
        "import sys; from pathlib import Path; place = Path(sys.argv[1]);"
        "from ml_control.aws.client import Clients; from ml_control.aws.lake import open_lake;"
        "from ml_control.aws.endpoints import SageMakerEndpoints;"
        "from ml_control.local.registry import SqliteTables;"
        "from ml_control.settings import AwsSettings;"
        "settings = AwsSettings.model_validate_json((place / 'settings.json').read_text());"
        "clients = Clients(settings); tables = SqliteTables(place / 'registry.db');"
        "plane = SageMakerEndpoints(clients, open_lake(clients), tables);"
        "plane.deploy('income-a', (place / 'archive').read_bytes(), 'v1', '3.2-0', 60, token=5)"
    )
    deployer = subprocess.Popen([sys.executable, "-c", script, str(hosted.place)])
    soon(lambda: hosted.status("income-a") == "Creating")
    deployer.send_signal(signal.SIGKILL)
    deployer.wait()
    assert "Creating" == hosted.control_plane().describe("income-a").state

    hosted.director.release()
    state = put(hosted.control_plane(), one, token=6)

    assert 1 == calls(hosted, "CreateEndpoint") - before
    assert alone(hosted, state, one)
    with pytest.raises(Conflict, match="token 6 came after the one with token 5"):
        put(hosted.control_plane(), one, token=5)


def test_a_deployer_that_was_overtaken_stops_and_the_newest_serves(hosted, one, another):
    """While one waits for its endpoint, another with a later lease comes: the first gives up with
    Conflict, and what it began is replaced.
    """
    hosted.director.endpoint("hang", name=hosted.real("*"))
    refused = []

    def early():
        try:
            put(hosted.control_plane(), one, token=1)
        except Conflict as error:
            refused.append(error)

    first = threading.Thread(target=early)
    first.start()
    soon(lambda: hosted.status("income-a") == "Creating")
    second = threading.Thread(
        target=lambda: put(hosted.control_plane(), another, version="v2", token=2)
    )
    second.start()
    first.join(WAIT)
    hosted.director.release()
    second.join(WAIT)

    assert [2] == [error.detail["seen"] for error in refused]
    state = hosted.control_plane().describe("income-a")
    assert ("InService", "v2", sha256(another)) == (
        state.state, state.model_version, state.detail["archive_sha256"],
    )  # fmt: skip


def test_the_endpoint_itself_keeps_the_highest_token(hosted, one, another):
    """A registry that was restored from before a deployment does not let its zombie through."""
    put(hosted.control_plane(), one, token=7)
    for tables in hosted.opened:
        tables.close()
    hosted.opened.clear()
    for file in hosted.place.glob("registry.db*"):
        file.unlink()
    plane = hosted.control_plane()

    with pytest.raises(Conflict) as caught:
        put(plane, another, version="v2", token=3)

    assert 7 == caught.value.detail["seen"]
    assert "v1" == plane.describe("income-a").model_version
    state = put(plane, another, version="v2", token=8)
    assert "v2" == state.model_version
    put(plane, one, version="v3", token=8)
    assert 2 == len(hosted.left()["configs"])  # that of v1, which this registry never made, is gone
    plane.stop("income-a")
    assert EMPTY == hosted.left()


def test_an_alarm_takes_an_update_back(hosted, one, another):
    """Blue/green with AutoRollback: a typed error with the alarm's name; the old model serves on,
    and what was made for the new one is gone.
    """
    plane = hosted.control_plane()
    before = put(plane, one, shape=INSTANCES)
    hosted.director.alarm("late")
    try:
        with pytest.raises(PlatformFailed, match=r"alarms are in ALARM state: \[late\]") as caught:
            put(plane, another, version="v2", shape=INSTANCES)
    finally:
        hosted.director.alarm("late", firing=False)

    assert "rolled back; the model before serves on" in caught.value.reason
    after = plane.describe("income-a")
    assert ("InService", "v1") == (after.state, after.model_version)
    assert before.detail["config"] == after.detail["config"]
    assert alone(hosted, after, one)
    reply = plane.invoke("income-a", b"1,2,3,4", archive=sha256(one))
    assert 200 == reply.status
    assert "v2" == put(plane, another, version="v2", shape=INSTANCES).model_version


def test_instances_are_asked_for_as_the_pipeline_file_says(hosted, one):
    """Capture, size, variant name and tags are what SageMaker holds; the endpoint is not converted
    to serverless, and with the same model it is left as it is.
    """
    plane = hosted.control_plane()
    state = put(plane, one, shape=INSTANCES)

    config = hosted.sagemaker.describe_endpoint_config(EndpointConfigName=state.detail["config"])
    (variant,) = config["ProductionVariants"]
    assert ("AllTraffic", "ml.m5.large", 2) == (
        variant["VariantName"], variant["InstanceType"], variant["InitialInstanceCount"],
    )  # fmt: skip
    assert 10 == config["DataCaptureConfig"]["InitialSamplingPercentage"]
    told = hosted.sagemaker.list_tags(ResourceArn=config["EndpointConfigArn"])["Tags"]
    tags = {tag["Key"]: tag["Value"] for tag in told}
    assert hosted.settings.project == tags["project"]
    assert ("v1", sha256(one)) == (tags["ml-control:model-version"], tags["ml-control:archive"])
    assert state.detail["config"] == put(plane, one).detail["config"]
    with pytest.raises(PlatformFailed, match="converts none to serverless"):
        put(plane, pack(booster(4)), version="v3")
    assert "v1" == plane.describe("income-a").model_version


def test_a_shape_that_sagemaker_refuses_is_refused_before_anything_is_made(hosted, one):
    """The compiler's words, by field."""
    shape = Endpoint.model_validate({"serverless": {"memory_mb": 1500}})

    with pytest.raises(InvalidSpec, match="memory_mb"):
        put(hosted.control_plane(), one, shape=shape)

    assert EMPTY == hosted.left()


def test_with_a_third_of_all_calls_throttled_a_deployment_comes_to_its_end(
    hosted, one, monkeypatch
):
    """Looking, making and marking under 30% throttling; what is refused altogether is Retryable,
    and the next try goes on from there, with one endpoint in the end.
    """
    # A client that is throttled slows down to one call in two seconds, of AWS's time.
    monkeypatch.setattr("botocore.retries.bucket.TokenBucket._MIN_RATE", 50.0)
    plane = hosted.control_plane(max_attempts=1)
    hosted.director.throttle(0.3)
    deadline, state = time.monotonic() + 2 * WAIT, None
    try:
        while state is None and time.monotonic() < deadline:
            try:
                state = put(plane, one)
            except Retryable:
                continue
    finally:
        hosted.director.throttle(0.0)

    assert state is not None, f"seed {hosted.director.seed}"
    assert alone(hosted, state, one)


def test_the_gateway_asks_endpoints_on_sagemaker(hosted, trained):
    """Requests go through SageMaker Runtime and are answered as a prediction asked directly is;
    what SageMaker does not answer is a typed refusal, and ``down`` deletes nothing.
    """
    from gateways import ThreadedGateway, records

    from ml_control.cli.processes import stop_all
    from ml_control.services.releases.deployment import deploy, predict, route

    platform = replace(trained.platform, endpoints=hosted.control_plane())
    pipeline = trained.pipeline()
    deploy(platform, pipeline, "setup", lambda _: None)
    route(platform, pipeline, "setup", lambda _: None)
    asked = records(trained, 3)
    home = SimpleNamespace(
        settings=trained.settings, platform=platform, path=trained.path, pipelines=trained.pipelines
    )
    gateway = ThreadedGateway(home)
    try:
        status, answer, _ = gateway.ask("POST", "/inference/tumours", {"records": asked})
        hosted.director.not_ready(hosted.real("*"))
        refused, told, _ = gateway.ask("POST", "/inference/tumours", {"records": asked})
        again, *_ = gateway.ask("POST", "/inference/tumours", {"records": asked})
    finally:
        gateway.end()

    assert (200, 503, 200) == (status, refused, again), told
    assert "ModelNotReadyException" in json.dumps(told)
    assert predict(platform, pipeline, asked)["predictions"] == answer["predictions"]
    app = SimpleNamespace(platform=platform)
    assert 0 == stop_all(app)
    assert "InService" == hosted.status("tumours-a")
