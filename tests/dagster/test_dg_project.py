"""A pipeline in an ordinary ``dg`` project, outside our own folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "pipelines"
PROJECT = """\
[project]
name = "shop"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
defs_module = "shop.defs"
registry_modules = ["ml_control.components"]
"""
DEFINITIONS = """\
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PLATFORM = """\
type: ml_control.components.Platform
attributes:
  home: ../../../state
"""


@pytest.fixture
def project(tmp_path):
    """A project with one pipeline and the platform, each a defs.yaml."""
    root = tmp_path / "project"
    shutil.copytree(EXAMPLES / "tumours", root / "shop" / "defs" / "tumours")
    files = {
        "pyproject.toml": PROJECT,
        "shop/__init__.py": "",
        "shop/definitions.py": DEFINITIONS,
        "shop/defs/__init__.py": "",
        "shop/defs/platform/defs.yaml": PLATFORM,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n", "utf-8")
    return root


def run(project, *command):
    """A program of this environment in the project, which knows no ML_CONTROL_ variable."""
    binaries = Path(sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ML_CONTROL_")}
    environment |= {
        "DAGSTER_HOME": str(project.parent / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PATH": f"{binaries}{os.pathsep}{environment.get('PATH', '')}",
        "PYTHONPATH": str(project),
        "VIRTUAL_ENV": str(binaries.parent),
    }
    return subprocess.run(
        [str(binaries / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=project,
        env=environment,
        timeout=120,
    )


def test_the_project_lists_the_pipelines_definitions(project):
    """``dg list defs`` shows assets with their group, jobs, sensors and the platform's resource."""
    done = run(project, "dg", "list", "defs", "--json")

    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    assets = {asset["asset_key"]: asset for asset in found["assets"]}
    assert {
        f"tumours/{name}" for name in ("raw", "processed", "model", "endpoint", "ab_config")
    } == set(assets)
    assert {"tumours"} == {asset["group_name"] for asset in assets.values()}
    assert {"tumours__ingest", "tumours__train"} <= {job["name"] for job in found["jobs"]}
    assert {"tumours__arrivals", "tumours__retraining"} <= {s["name"] for s in found["sensors"]}
    assert "ml_control" in {resource["name"] for resource in found["resources"]}


def test_the_project_passes_dgs_own_check_and_keeps_its_home(project):
    """``dg check defs`` loads everything; the platform's home is where its file says."""
    done = run(project, "dg", "check", "defs")
    home = run(
        project,
        "python",
        "-c",
        "from shop.definitions import defs; d = defs();print(d.resources['ml_control'].home)",
    )

    assert 0 == done.returncode, done.stderr
    assert "All definitions loaded successfully" in done.stdout + done.stderr
    assert str(project / "state") == home.stdout.strip(), home.stderr


WRONG = [  # what is changed, the field that is wrong then, and words of the reason
    ("min_rows: 20", "min_rows: 0", "quality.min_rows", "less than the minimum of 1"),
    ("task: binary", "task: ranking", "columns.task", "ranking"),
    ("max_depth: 4,", "eval_metric: auc,", "hyperparameters", "eval_metric"),
]


def test_a_wrong_field_is_named_with_its_line(project):
    """dg's check says which field of which line is wrong, and why."""
    cases = []
    for number, (old, new, field, words) in enumerate(WRONG):
        copy = project.with_name(f"project-{number}")
        shutil.copytree(project, copy)
        file = copy / "shop" / "defs" / "tumours" / "defs.yaml"
        text = file.read_text("utf-8")
        file.write_text(text.replace(old, new), "utf-8")
        line = text[: text.index(old)].count("\n") + 1
        cases.append((copy, f"{file}:{line}", field, words))

    with ThreadPoolExecutor() as threads:  # each of them mostly starts up
        checks = list(threads.map(lambda case: run(case[0], "dg", "check", "defs"), cases))

    for done, (_, place, field, words) in zip(checks, cases, strict=True):
        told = done.stdout + done.stderr
        assert 1 == done.returncode
        assert place in told
        assert field in told
        assert words in told
