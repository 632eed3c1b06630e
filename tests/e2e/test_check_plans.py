"""check compiles deploy plans: what AWS would refuse is refused here, without an account."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

TUMOURS = "tumours"
EXAMPLE = Path(__file__).parents[2] / "pipelines" / TUMOURS


@pytest.fixture
def ask(make_shell, tmp_path):
    """A shell on a home whose tumours pipeline is served as this says."""

    def begin(section):
        folder = tmp_path / "pipelines" / TUMOURS
        shutil.copytree(EXAMPLE, folder)
        text = (folder / "defs.yaml").read_text("utf-8")
        (folder / "defs.yaml").write_text(
            text.replace("  quality:\n", f"{section}\n  quality:\n"), "utf-8"
        )
        return make_shell(tmp_path)

    return begin


def test_what_aws_refuses_ends_check_with_the_field_and_the_substitute(ask):
    """Exit status 1, every error of the file, and the same as JSON."""
    shell = ask("  endpoint: {serverless: {memory_mb: 1000, max_concurrency: 300}}")

    said = shell("check", "--platform", "aws", status=1).stderr
    told = shell.json("check", "--platform", "aws", status=1)

    assert "endpoint.serverless.memory_mb: 1000 is not 1024 to 6144" in said
    assert "next: write 1024" in said
    assert "also: endpoint.serverless.max_concurrency" in said
    assert [] == told["ok"]
    broken = told["broken"][TUMOURS]
    assert "InvalidSpec" == broken["kind"]
    assert 2 == len(broken["findings"])
    assert "aws" == told["plans"][TUMOURS]["platform"]


def test_on_this_machine_the_same_file_is_usable_and_warned_of(ask):
    """What only AWS heeds keeps nobody from running locally."""
    shell = ask("  endpoint: {serverless: {memory_mb: 1000}}")

    done = shell("check")

    assert f"ok: {TUMOURS}" in done.stdout
    assert "warning: tumours endpoint.serverless.memory_mb: on AWS: 1000" in done.stderr
    assert [TUMOURS] == shell.json("check")["ok"]


def test_a_usable_plan_says_what_sagemaker_will_be_asked(ask):
    """The variant, its limits and how long a deployment may take."""
    shell = ask("  endpoint: {instances: {type: ml.m5.large, count: 2}}")

    serves = shell.json("check", "--platform", "aws")["plans"][TUMOURS]["serves"]

    assert ("instances", "ml.m5.large") == (serves["endpoint"], serves["variant"]["InstanceType"])
    assert 6 << 20 == serves["request_bytes"]
