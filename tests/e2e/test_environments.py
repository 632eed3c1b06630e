"""Container environments: built once, whole or not at all, by however many processes ask."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ml_control
from ml_control.core.containers import CONTAINERS, container
from ml_control.environments import cache_root, python_for
from ml_control.errors import PlatformFailed

LOCKS = Path(ml_control.__file__).parent / "containers"


def test_our_own_interpreter_serves_its_own_xgboost():
    """Nothing is built for the container whose XGBoost is installed here."""
    assert python_for(container("3.2-0")) == Path(sys.executable)


def test_two_processes_at_once_build_one_environment(tmp_path):
    """Both get the same interpreter, with the exact XGBoost and our package, and no rubble."""
    program = (
        "from ml_control.core.containers import container as c;"
        "from ml_control.environments import python_for as p; print(p(c('1.7-1')))"
    )
    environment = {**os.environ, "ML_CONTROL_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    first, second = ((process.communicate()[0].strip(), process.returncode) for process in both)
    look = "import xgboost, ml_control.serving.proving as p; print(xgboost.__version__, p.__file__)"

    seen = subprocess.run(
        [first[0], "-c", look], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()

    assert first == second
    assert seen[0] == "1.7.4"
    assert Path(seen[1]).is_relative_to(Path(first[0]).parents[1])
    made = sorted(path.name for path in (tmp_path / "envs").iterdir())
    assert made == [Path(first[0]).parents[1].name, f"{Path(first[0]).parents[1].name}.lock"]


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    """Without an index the refusal has uv's own words, and the next try starts clean."""
    monkeypatch.setenv("ML_CONTROL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_OFFLINE", "1")

    with pytest.raises(PlatformFailed, match="uv could not build it") as caught:
        python_for(container("1.5-1"))

    assert caught.value.object == "environment of container 1.5-1"
    assert "network" in caught.value.reason.lower() or "cache" in caught.value.reason.lower()
    assert [p for p in (tmp_path / "cache" / "envs").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("tag", list(CONTAINERS))
def test_each_lock_pins_the_containers_xgboost_by_hash(tag):
    """Every requirement has an exact version and hashes, and no index host is named."""
    text = (LOCKS / f"{tag}.lock").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==([^ ]+)[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)

    assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE))
    versions = {version for name, version in pins if name in ("xgboost", "xgboost-cpu")}
    assert versions == {CONTAINERS[tag].xgboost}
    assert {"numpy", "scipy", "uvicorn", "httptools"} <= {name for name, _ in pins}
    assert "://" not in text


def test_the_cache_is_where_it_is_told_to_be(tmp_path, monkeypatch):
    """``ML_CONTROL_CACHE`` wins over the home directory."""
    monkeypatch.setenv("ML_CONTROL_CACHE", str(tmp_path))
    assert cache_root() == tmp_path

    monkeypatch.delenv("ML_CONTROL_CACHE")
    assert cache_root() == Path.home() / ".cache" / "ml-control"
