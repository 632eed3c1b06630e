"""The deploy-plan compiler: what AWS would refuse or not do is refused offline, by field."""

from __future__ import annotations

from datetime import date
from functools import cache

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.deploy_plan import SHARD_BYTES, compile_plan, refusal_of, require_deployable
from ml_control.core.hosting import VARIANT, hosting_of
from ml_control.errors import InvalidSpec
from ml_control.services.authoring.pipelines import read_folder
from ml_control.spec import Endpoint, PipelineSpec

TODAY = date(2026, 11, 1)
COLUMNS = {
    "target": "left",
    "task": "binary",
    "positive": "yes",
    "features": [{"name": "age", "type": "number"}],
}


def spec(**sections):
    """A small pipeline with these sections."""
    return PipelineSpec.model_validate(
        {
            "name": "churn",
            "source": {"format": "csv", "partition": {"by": "day", "start": "2026-01-01"}},
            "columns": COLUMNS,
            **sections,
        }
    )


def errors(platform="aws", today=TODAY, **sections):
    """Fields that a plan refuses."""
    return [one.field for one in compile_plan(spec(**sections), platform, today).errors]


def warnings(platform="aws", today=TODAY, **sections):
    """Fields that a plan warns of."""
    return [one.field for one in compile_plan(spec(**sections), platform, today).warnings]


@cache
def update_request():
    """UpdateEndpoint's request, as botocore describes it."""
    model = get_session().get_service_model("sagemaker")
    return model.operation_model("UpdateEndpoint").input_shape


def serverless(**values):
    return {"endpoint": {"serverless": values}}


def instances(**values):
    return {"endpoint": {"instances": values}}


def machines(**values):
    return {"training": {"sagemaker": values}}


def test_a_plain_pipeline_is_served_serverless_and_has_no_findings():
    """Nothing has to be written to move to AWS."""
    plan = compile_plan(spec(), "aws", TODAY)

    assert () == plan.findings
    assert "serverless" == plan.serves["endpoint"]
    assert {"MemorySizeInMB": 2048, "MaxConcurrency": 5} == (
        plan.serves["variant"]["ServerlessConfig"]
    )


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        (serverless(memory_mb=1000), "endpoint.serverless.memory_mb"),
        (serverless(memory_mb=7168), "endpoint.serverless.memory_mb"),
        (serverless(max_concurrency=0), "endpoint.serverless.max_concurrency"),
        (serverless(max_concurrency=201), "endpoint.serverless.max_concurrency"),
        (instances(capture=0.005), "endpoint.instances.capture"),
        (instances(rollback={}), "endpoint.instances.rollback.alarms"),
        (
            instances(rollback={"alarms": [f"a{i}" for i in range(11)]}),
            "endpoint.instances.rollback.alarms",
        ),
        (instances(rollback={"alarms": ["a", "a"]}), "endpoint.instances.rollback.alarms"),
        (
            instances(rollback={"alarms": ["a"], "bake": "2 h"}),
            "endpoint.instances.rollback.bake",
        ),
        (
            instances(rollback={"alarms": ["a"], "canary": 0.2}),
            "endpoint.instances.rollback.canary",
        ),
        (
            instances(count=4, rollback={"alarms": ["a"], "canary": 0.75}),
            "endpoint.instances.rollback.canary",
        ),
        (machines(gpu=True), "training.sagemaker.gpu"),
        (machines(spot=True, max_wait="30 min"), "training.sagemaker.max_wait"),
        ({"training": {"max_runtime": "29 d"}}, "training.max_runtime"),
        (
            {"training": {"tuning": {"ranges": {"eta": [0.1, 0.3]}, "trials": 800}}},
            "training.tuning.trials",
        ),
        (
            {"training": {"tuning": {"ranges": {"eta": [0.1, 0.3]}, "max_runtime": "60 s"}}},
            "training.tuning.max_runtime",
        ),
        ({"training": {"container": "0.72"}}, "training.container"),
        (
            {
                "source": {
                    "format": "images",
                    "partition": {"by": "day", "start": "2026-01-01"},
                    "image": {"height": 1024, "width": 1024, "mode": "colour"},
                },
                "columns": {"target": "label", "task": "multiclass"},
            },
            "source.image",
        ),
    ],
)
def test_what_aws_refuses_is_refused_offline_with_a_substitute(sections, field):
    """Exactly the field at fault is named, with a reason and what to write instead."""
    plan = compile_plan(spec(**sections), "aws", TODAY)

    assert [field] == [one.field for one in plan.errors]
    assert all(one.reason and one.instead for one in plan.errors)
    refusal = refusal_of(plan, "pipelines/churn/defs.yaml")
    assert isinstance(refusal, InvalidSpec)
    assert f"pipelines/churn/defs.yaml {field}" == refusal.object


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        (machines(instance_type="ml.g5.xlarge"), "training.sagemaker.instance_type"),
        (machines(max_wait="3 h"), "training.sagemaker.max_wait"),
        (machines(instance_count=2), "training.sagemaker.instance_count"),
        (instances(type="ml.g5.xlarge"), "endpoint.instances.type"),
        (
            {
                "columns": {
                    "target": "left",
                    "task": "binary",
                    "positive": "yes",
                    "features": [{"name": f"f{i}", "type": "number"} for i in range(3000)],
                }
            },
            "columns.features",
        ),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(sections, field):
    """It works, so it is not refused."""
    assert [field] == warnings(**sections)
    assert [] == errors(**sections)


def test_a_container_past_its_last_patch_is_a_warning_with_the_date():
    """On its last day it is patched still; the container to use instead is named."""
    old = {"training": {"container": "3.0-5"}}

    assert [] == warnings(today=date(2026, 11, 17), **old)
    (one,) = compile_plan(spec(**old), "aws", date(2026, 11, 18)).warnings
    assert "2026-11-17" in one.reason
    assert "3.2-0" in one.instead
    assert "see AWS" in compile_plan(spec(**old), "aws", date(2028, 1, 1)).warnings[0].instead


def test_on_one_machine_nothing_of_aws_is_refused_but_it_is_told():
    """A file that sets AWS fields hears what would be wrong there; another one hears nothing."""
    wrong = serverless(memory_mb=1000)

    assert [] == errors("local", **wrong)
    assert ["endpoint.serverless.memory_mb"] == warnings("local", **wrong)
    assert [] == warnings("local", training={"max_runtime": "29 d"})
    alarms = {"rollout": {"guardrails": {"alarms": ["latency"]}}}
    assert ["rollout.guardrails.alarms"] == warnings("local", **alarms)
    assert [] == warnings("aws", **alarms)


@given(st.integers(-100, 20_000), st.integers(-5, 400))
def test_serverless_sizes_are_taken_exactly_where_sagemaker_takes_them(memory, concurrency):
    """No size that SageMaker takes is refused, and none that it refuses is passed on."""
    shape = Endpoint.model_validate(
        serverless(memory_mb=memory, max_concurrency=concurrency)["endpoint"]
    )
    allowed = memory in (1024, 2048, 3072, 4096, 5120, 6144) and 1 <= concurrency <= 200

    if allowed:
        assert (
            memory == require_deployable("e", shape).variant["ServerlessConfig"]["MemorySizeInMB"]
        )
    else:
        with pytest.raises(InvalidSpec):
            require_deployable("e", shape)


@settings(deadline=None)  # the first example reads botocore's model
@given(
    st.integers(1, 100),
    st.floats(0, 0.99),
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=12),
    st.integers(0, 20_000),
    st.floats(0, 1),
)
def test_what_the_compiler_lets_through_is_a_valid_request(count, canary, alarms, bake, capture):
    """Whatever passes has a blue/green deployment within botocore's own bounds."""
    shape = Endpoint.model_validate(
        instances(
            count=count,
            capture=capture,
            rollback={"alarms": alarms, "canary": canary, "bake": f"{bake} s"},
        )["endpoint"]
    )
    try:
        hosting = require_deployable("e", shape)
    except InvalidSpec:
        return

    asked = {
        "EndpointName": "e",
        "EndpointConfigName": "c",
        "DeploymentConfig": hosting.deployment,
    }
    report = ParamValidator().validate(asked, update_request())
    assert not report.has_errors(), report.generate_report()
    routing = hosting.deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert 0 <= routing["WaitIntervalInSeconds"] <= 3600
    assert routing.get("CanarySize", {"Value": 50})["Value"] <= 50
    assert 1 <= len(hosting.deployment["AutoRollbackConfiguration"]["Alarms"]) <= 10


def test_a_training_file_is_as_large_as_the_transform_step_makes_it():
    """The warning about instances without a file names the size that is written."""
    from ml_control.services.models import channels

    assert channels.SHARD_BYTES == SHARD_BYTES


def test_the_variant_has_one_name_for_ever():
    """SageMaker refuses an update that changes it."""
    shapes = [None, *(Endpoint.model_validate(s["endpoint"]) for s in (serverless(), instances()))]

    assert [VARIANT] * 3 == [hosting_of(shape).variant["VariantName"] for shape in shapes]


def test_a_volume_key_is_only_given_to_machines_that_take_one():
    """A key for a machine with a disk of its own is refused by SageMaker."""
    own = ("m5d", "m5dn", "m6gd", "c6id", "p3dn", "g4dn", "g5", "g6e", "p4d", "p5en", "trn1")
    network = ("m5", "m5n", "c6i", "c7g", "r5", "t2", "p3", "inf2")

    for families, takes in ((own, False), (network, True)):
        for name in families:
            shape = Endpoint.model_validate(instances(type=f"ml.{name}.xlarge")["endpoint"])
            assert takes == hosting_of(shape).volume_key, name


def test_a_field_of_awss_own_documentation_is_answered_with_the_substitute(home):
    """Whoever writes what a serverless endpoint has none of is told what does it here."""
    home.edit("  quality:\n", "  endpoint: {serverless: {capture: 0.5}}\n  quality:\n")

    (refused,) = read_folder(home.pipelines).broken.values()

    assert "endpoint.serverless.capture" in refused.object
    assert "captures nothing" in refused.reason
    assert "log.capture" in refused.next
