"""What people change on SageMaker beside the control plane: none of it serves as ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hosted import TAG, by_hand, put, soon

from ml_control.core.digests import sha256
from ml_control.errors import PlatformFailed, Retryable
from ml_control.lake import AREAS
from ml_control.local.registry import SqliteTables


def test_an_update_by_hand_is_found_and_nothing_of_it_is_taken(hosted, one, another):
    """Somebody points the endpoint to a configuration of their own: it is told as unknown, and no
    answer of it is taken for the proven archive's; the next deployment puts it right.
    """
    plane = hosted.control_plane()
    state = put(plane, one)
    by_hand(hosted, another, variables={})

    found = plane.describe("income-a")

    assert ("InService", "unknown", "") == (
        found.state, found.model_version, found.detail["archive_sha256"],
    )  # fmt: skip
    with pytest.raises(Retryable, match="another model"):
        plane.invoke("income-a", b"1,2,3,4", archive=sha256(one))
    assert state.detail["config"] == put(plane, one).detail["config"]


def test_stopping_in_mid_update_waits_and_leaves_nothing(hosted, one, another):
    """SageMaker refuses to delete what is being updated: stop waits for it."""
    plane = hosted.control_plane()
    put(plane, one)
    by_hand(hosted, another, variables={}, done=False)

    plane.stop("income-a")

    assert "absent" == hosted.status("income-a")
    assert [] == hosted.left()["archives"]
    state = plane.describe("income-a")
    assert ("Missing", "stopped", "v1") == (state.state, state.reason, state.model_version)


def test_an_endpoint_deleted_by_hand_is_missing_and_comes_back(hosted, one):
    """It is told with the version that it held, and deploying makes it anew."""
    plane = hosted.control_plane()
    put(plane, one)
    hosted.sagemaker.delete_endpoint(EndpointName=hosted.real("income-a"))
    soon(lambda: hosted.status("income-a") == "absent")

    state = plane.describe("income-a")

    assert ("Missing", "v1") == (state.state, state.model_version)
    assert "deleted in SageMaker" in state.reason
    assert "InService" == put(plane, one).state


def test_an_archive_that_was_replaced_is_found_before_it_is_served(hosted, one, another):
    """New machines would read it: the next deployment says so, or puts the proven bytes back."""
    plane = hosted.control_plane()
    put(plane, one)
    key = f"artifacts/_served/income-a/{sha256(one)}/model.tar.gz"
    hosted.lake.put(key, another)

    put(plane, one)

    assert one == hosted.lake.get(key)


def test_a_variable_or_an_image_of_somebody_elses_is_not_one_of_ours(hosted, one):
    """The same archive under another variable answers otherwise, so it is unproven."""
    plane = hosted.control_plane()
    put(plane, one)
    ours = {"ML_CONTROL_MODEL_VERSION": "v1", "ML_CONTROL_CONTAINER": TAG}
    by_hand(hosted, None, variables={**ours, "SAGEMAKER_INFERENCE_OUTPUT": "predicted_label"})

    assert "" == plane.describe("income-a").detail["archive_sha256"]


def test_our_archive_in_another_of_our_containers_is_not_proven(hosted, one):
    """I2: older containers load a newer model without an error, and answer otherwise."""
    plane = hosted.control_plane()
    put(plane, one)
    theirs = {"ML_CONTROL_MODEL_VERSION": "v1", "ML_CONTROL_CONTAINER": "3.0-5"}
    by_hand(hosted, None, variables=theirs, image=plane._parts.image("3.0-5"))

    assert "" == plane.describe("income-a").detail["archive_sha256"]
    with pytest.raises(Retryable, match="another model"):
        plane.invoke("income-a", b"1,2,3,4", archive=sha256(one))


def test_a_container_that_nobody_knows_is_not_one_of_ours(hosted, one):
    """What serves is told as unproven, not as an error, so that it can be stopped."""
    plane = hosted.control_plane()
    put(plane, one)
    theirs = {"ML_CONTROL_MODEL_VERSION": "v1", "ML_CONTROL_CONTAINER": "99.0-1"}
    by_hand(hosted, None, variables=theirs)

    assert "" == plane.describe("income-a").detail["archive_sha256"]


def test_what_serves_without_proof_is_stopped(hosted, trained, another):
    """I2: somebody points the live variant to a model of their own. The next look stops it, writes
    it down, and says what to do; the proven model is brought back only by its verdict.
    """
    from ml_control.services.releases.deployment import deploy, ensure_serving, route
    from ml_control.services.releases.reconcile import endpoint_name

    platform = replace(trained.platform, endpoints=hosted.control_plane())
    pipeline = trained.pipeline()
    deploy(platform, pipeline, "setup", lambda _: None)
    route(platform, pipeline, "setup", lambda _: None)
    name = endpoint_name(pipeline, "a")
    proven = platform.endpoints.describe(name)
    by_hand(hosted, another, name)  # it claims to be the proven model

    states = ensure_serving(platform, pipeline)

    newest = [item.action for item in platform.registry.history.newest(pipeline.name)]
    assert "halted" in newest
    assert ("InService", proven.model_version) == (states["a"].state, states["a"].model_version)
    after = platform.endpoints.describe(name)
    assert proven.detail["archive_sha256"] == after.detail["archive_sha256"]


def test_an_archive_that_is_replaced_while_it_serves_is_found_at_the_next_look(
    hosted, one, another
):
    """I2: whoever starts a machine later would serve the other bytes. No control plane tells the
    endpoint as proven any more, no answer counts, and the next deployment makes it anew, for
    nobody knows what its machines have read.
    """
    plane, beside = hosted.control_plane(), hosted.control_plane()
    state = put(plane, one)
    archive = sha256(one)
    assert 200 == beside.invoke("income-a", b"1,2,3,4", archive=archive).status
    made = hosted.director.calls()["CreateEndpoint"]
    key = f"artifacts/_served/income-a/{archive}/model.tar.gz"
    hosted.lake.put(key, another)

    for control_plane in (plane, beside, hosted.control_plane()):
        detail = control_plane.describe("income-a").detail
        assert ("", hosted.lake.uri(key)) == (detail["archive_sha256"], detail["replaced"])
        with pytest.raises(Retryable, match="another model"):
            control_plane.invoke("income-a", b"1,2,3,4", archive=archive)

    after = put(plane, one)
    assert 1 == hosted.director.calls()["CreateEndpoint"] - made
    assert (state.detail["config"], archive) == (
        after.detail["config"], after.detail["archive_sha256"],
    )  # fmt: skip
    assert 200 == beside.invoke("income-a", b"1,2,3,4", archive=archive).status


def test_an_archive_that_is_gone_is_put_back_and_what_serves_goes_on(hosted, one):
    """Nothing else can be read from its place: answers count, and the next deployment heals it."""
    plane = hosted.control_plane()
    put(plane, one)
    made = hosted.director.calls()["CreateEndpoint"]
    key = f"artifacts/_served/income-a/{sha256(one)}/model.tar.gz"
    hosted.lake.delete(key)

    assert 200 == plane.invoke("income-a", b"1,2,3,4", archive=sha256(one)).status
    put(plane, one)
    assert one == hosted.lake.get(key)
    assert made == hosted.director.calls()["CreateEndpoint"]


def test_a_configuration_made_anew_under_our_name_is_not_taken_for_ours(hosted, one, another):
    """I2: somebody deletes our model and configuration, makes others of the same names, and
    updates the endpoint to what it is called already. It is told as unknown, also by a control
    plane that knew the name, and deploying makes the endpoint anew.
    """
    plane = hosted.control_plane()
    state = put(plane, one)
    config = state.detail["config"]
    sagemaker = hosted.sagemaker
    told = sagemaker.describe_endpoint_config(EndpointConfigName=config)
    (variant,) = told["ProductionVariants"]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    hosted.lake.put("artifacts/mine/model.tar.gz", another)
    theirs = {"ModelDataUrl": hosted.lake.uri("artifacts/mine/model.tar.gz")}
    by_hand(hosted, another, variables={})
    sagemaker.delete_endpoint_config(EndpointConfigName=config)
    sagemaker.delete_model(ModelName=variant["ModelName"])
    sagemaker.create_model(
        ModelName=variant["ModelName"],
        PrimaryContainer={**model["PrimaryContainer"], **theirs},
        ExecutionRoleArn=model["ExecutionRoleArn"],
    )
    sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=[variant])
    sagemaker.update_endpoint(EndpointName=hosted.real("income-a"), EndpointConfigName=config)
    soon(lambda: hosted.status("income-a") == "InService")

    assert "" == plane.describe("income-a").detail["archive_sha256"]
    with pytest.raises(Retryable, match="another model"):
        plane.invoke("income-a", b"1,2,3,4", archive=sha256(one))

    after = put(plane, one)
    assert (config, sha256(one)) == (after.detail["config"], after.detail["archive_sha256"])


def test_an_endpoint_of_another_installation_is_left_alone(hosted, one, another, tmp_path):
    """Project, pipeline and environment of two installations can give one name: neither changes
    nor deletes the other's endpoint, and the error names both.
    """
    project = hosted.settings.project
    plane = hosted.control_plane()
    put(plane, one, "income-a-a")
    twin = hosted.control_plane(
        environment="a-test", buckets={area: hosted.settings.bucket(area) for area in AREAS}
    )
    twin._turns._tables = SqliteTables(tmp_path / "another.db")

    with pytest.raises(PlatformFailed, match=f"belongs to {project}/test, and this is") as caught:
        put(twin, another)
    with pytest.raises(PlatformFailed, match="belongs to"):
        twin.stop("income-a")

    twin._turns._tables.close()
    assert "aws.environment" in caught.value.next
    assert ("InService", sha256(one)) == (
        (state := plane.describe("income-a-a")).state, state.detail["archive_sha256"],
    )  # fmt: skip
