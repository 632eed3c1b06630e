"""The local platform needs nothing of AWS: not installed, and not imported where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drilling import DAYS, NAME, write_pipeline
from isolated import environment_of

from ml_control.testing.samples import write_tumours

VENDOR = ("boto3", "botocore", "sagemaker", "dagster_aws", "moto", "ml_control.aws")
LOCAL_PASS = """
import json, sys
from click.testing import CliRunner
from ml_control.cli.main import cli

def do(*arguments):
    done = CliRunner().invoke(cli, [*arguments])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout

told = {"check": do("check"), "ingest": do("ingest", NAME, *FILES), "run": do("run", NAME)}
told["status"] = json.loads(do("status", "--json"))
told["predict"] = json.loads(do("predict", NAME, "--input", FILES[0], "--json"))
do("down")
"""
SENSORS = """
import sys
import ml_control.sensors.arrivals, ml_control.sensors.retraining, ml_control.sensors.rollout
from ml_control.definitions import load_definitions
assert load_definitions().resolve_sensor_def(f"{NAME}__arrivals")
told = {}
"""
GATEWAY = """
import sys
import ml_control.gateway.__main__
from ml_control.platform import open_platform
from ml_control.serving import handlers
from ml_control.services.traffic import consumer
from ml_control.settings import load_settings
platform = open_platform(load_settings())
told = {"waiting": platform.stream.state(NAME).waiting}
"""
REFUSED = """
import sys
from ml_control.errors import InvalidSpec
from ml_control.platform import open_platform
from ml_control.settings import AwsSettings, load_settings
aws = {"platform": "aws", "aws": AwsSettings(region="eu-west-1")}
try:
    told = open_platform(load_settings().model_copy(update=aws))
except InvalidSpec as error:
    told = error.to_dict()
"""


class Installation:
    """A home with a small pipeline, and programs that one interpreter runs on it."""

    def __init__(self, python, root):
        self.python, self.root = python, root
        self.files = [str(file) for file in write_tumours(root / "data", DAYS[:1])]
        write_pipeline(root / "pipelines")

    def __call__(self, program):
        """What a program leaves as ``told``, and the modules of AWS that it loaded."""
        lines = [
            f"NAME, FILES = {NAME!r}, {self.files!r}",
            program,
            f"roots = {VENDOR!r}",
            "dotted = tuple(f'{root}.' for root in roots)",
            "loaded = [name for name in sys.modules if f'{name}.'.startswith(dotted)]",
            "import json; print(json.dumps([told, loaded]))",
        ]
        done = subprocess.run(
            [self.python, "-c", "\n".join(lines)],
            cwd=self.root,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.root),
                "ML_CONTROL_HOME": str(self.root / "home"),
                "ML_CONTROL_PIPELINES": str(self.root / "pipelines"),
                "ML_CONTROL_GATEWAY_PORT": "0",
                "DAGSTER_DISABLE_TELEMETRY": "1",
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert 0 == done.returncode, f"{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """An installation with what requirements/base.lock names, and nothing else."""
    python = environment_of("base", package=True)
    found = subprocess.run([python, "-c", "import boto3"], capture_output=True, check=False)
    assert b"No module named 'boto3'" in found.stderr
    return Installation(python, tmp_path_factory.mktemp("without"))


def test_a_pipeline_runs_without_the_extra(without):
    """From files to predictions of a live model, in an environment that has no boto3."""
    told, _ = without(LOCAL_PASS)
    (status,) = told["status"]["pipelines"]

    assert told["check"].startswith(f"ok: {NAME}")
    assert "is live on a" in told["run"]
    assert status["live"]["model_version"] == told["predict"]["model_version"]
    rows = len(Path(without.files[0]).read_text().splitlines()) - 1
    assert rows == len(told["predict"]["predictions"])


def test_the_platform_aws_names_the_extra_that_it_needs(without):
    """Without it the refusal is typed and says what to install."""
    told, _ = without(REFUSED)

    assert ("InvalidSpec", "setting platform") == (told["kind"], told["object"])
    assert "pip install 'ml-control[aws]'" in told["next"]


@pytest.mark.parametrize(
    "program", [LOCAL_PASS, SENSORS, GATEWAY], ids=["run", "sensors", "gateway"]
)
def test_nothing_of_aws_is_imported_locally(tmp_path, program):
    """With everything installed, a local process loads none of it."""
    assert [] == Installation(sys.executable, tmp_path)(program)[1]
