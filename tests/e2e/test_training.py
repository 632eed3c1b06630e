"""Searches and weighed classes as the pipeline file asks for them, run from the command line."""

from __future__ import annotations

import os
import pty
import re
import sys
from contextlib import suppress

import pytest
from claims import DAY, write_claims, write_pipeline

from ml_control.cli.progress import rounds_shown
from ml_control.platform import open_platform
from ml_control.ports import Round
from ml_control.services.models.progress import teller
from ml_control.settings import load_settings

RANGES = {"max_depth": [2, 4], "eta": [0.05, 0.5]}
PIPELINES = {
    "rare": (
        "binary",
        {"class_weights": "balanced", "tuning": {"trials": 3, "ranges": RANGES}},
    ),
    "three": ("multiclass", {"class_weights": "balanced"}),
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory, make_shell):
    """One home where each pipeline was run once and its model is live."""
    shell = make_shell(tmp_path_factory.mktemp("training"))
    try:
        for name, (task, training) in PIPELINES.items():
            write_pipeline(shell.pipelines, name, task, **training)
            write_claims(shell.home / "landing" / name / f"dt={DAY}" / "claims.csv", task)
        shell.said = {name: shell("run", name) for name in PIPELINES}
        yield shell
    finally:
        shell("down")


@pytest.fixture(scope="module")
def platform(shell):
    """What the commands wrote, seen from here."""
    return open_platform(load_settings(shell.home, shell.pipelines))


def gates(platform, name):
    """The gates of a pipeline's one verdict, by name."""
    (verdict,) = platform.registry.models.verdicts(name)
    return {gate.name: gate for gate in verdict.gates}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_model_of_weighed_classes_passes_its_gates(shell, platform, name):
    """It is live, its job was weighed, and the archive reproduces the weighed metric."""
    (model,) = platform.registry.models.all(name)

    assert f"{name}: model {model.version[:12]} is live on a (" in shell.said[name].stdout
    assert "1" == model.hyperparameters["csv_weights"]
    assert {True} == {gate.passed for gate in gates(platform, name).values()}
    witness = gates(platform, name)["witness"]
    logged = platform.registry.models.trial(name, model.training_job)["watched_value"]
    assert pytest.approx(logged, rel=1e-5) == witness.observed


def test_the_best_trial_of_the_search_is_the_model(shell, platform):
    """Three trials, the file's own setting first; the lowest validation value was packaged."""
    trials = shell.json("models", "rare", "--trials")["trials"]
    (model,) = platform.registry.models.all("rare")

    assert [1, 2, 3] == [trial["number"] for trial in trials]
    assert {"max_depth": 3, "eta": 0.3} == trials[0]["params"]
    (best,) = [trial for trial in trials if trial["best"]]
    assert best["value"] == min(trial["value"] for trial in trials)
    assert best["job"] == model.training_job
    assert str(best["params"]["eta"]) == model.hyperparameters["eta"]
    assert best["rounds_kept"] == model.best_iteration + 1


def test_trials_are_shown_to_people(shell):
    """A line for each trial with its setting, the best marked; a word where there is none."""
    shown = shell("models", "rare", "--trials").stdout
    trials = shell.json("models", "rare", "--trials")["trials"]

    assert 1 == shown.count("│ * ")
    for trial in trials:
        assert f"eta={trial['params']['eta']}" in shown
        assert f"{trial['value']:.5f}" in shown
    assert "three: no trials; training.tuning" in shell("models", "three", "--trials").stdout


def test_rounds_without_a_terminal_are_plain_lines(shell):
    """Every tenth round of each trial on stderr, and none of them on stdout."""
    said = shell.said["rare"]
    lines = [line for line in said.stderr.splitlines() if line.startswith("trial ")]

    assert [f"trial {n} of 3: [{r}]" for n in (1, 2, 3) for r in (0, 10, 20)] == [
        line[: line.index("]") + 1] for line in lines
    ]
    assert all("validation-logloss:" in line for line in lines)
    assert "logloss:" not in said.stdout


def test_rounds_in_a_terminal_are_one_live_line(monkeypatch):
    """The present training has a bar; of each before it one line stays with its last round."""
    terminal, ours = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(ours, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with rounds_shown():
            for number in range(1, 41):  # more than the terminal has lines
                tell = teller(lambda _: None, f"trial {number} of 40", 2)
                for index in range(2):
                    tell(Round(index, {"validation-logloss": number + index / 10}))
        stream.flush()
        os.set_blocking(terminal, False)
        shown = b""
        with suppress(BlockingIOError):
            while part := os.read(terminal, 1 << 16):
                shown += part
    os.close(terminal)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "trial 39 of 40: [1] validation-logloss:39.10000" in text
    last = text.replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(r"trial 40 of 40 .* 2/2 validation-logloss 40.1", last), last
    assert "…" not in text
