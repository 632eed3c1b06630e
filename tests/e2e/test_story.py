"""One pipeline's story on the command line: two models, a rollback, and what was live when."""

from __future__ import annotations

import json
import time

import polars as pl
import pytest

from ml_control.platform import open_platform
from ml_control.ports import Prediction
from ml_control.settings import load_settings

P = "tumours"


@pytest.fixture(scope="module")
def told(tmp_path_factory, trained_template, make_shell):
    """A model goes live, another one replaces it on more data, a person takes that back."""
    home = trained_template.copy_to(tmp_path_factory.mktemp("timeline"))
    shell = make_shell(home.root)
    shell.times, shell.live, shell.days = [time.time()], [], home.days
    try:
        _step(shell, "run", P)
        home.land(home.days[2])
        _step(shell, "run", P)
        _step(shell, "rollback", P, "--because", "people complained", "--actor", "ada")
        yield shell
    finally:
        shell("down")


def _step(shell, *command):
    shell(*command)
    status = shell.json("status")["pipelines"][0]
    shell.live.append((status["live"]["variant"], status["live"]["model_version"]))
    shell.times.append(time.time())


def test_what_was_live_is_told_of_every_moment(told):
    """Before all, after each model and after the rollback: as status said then; who and why."""
    first, second, third = (told.json("history", P, "--at", iso(at)) for at in told.times[1:])

    assert told.json("history", P, "--at", iso(told.times[0]))["live"] is None
    assert [list(pair) for pair in told.live] == [
        [seen["live"]["variant"], seen["live"]["subject"]] for seen in (first, second, third)
    ]
    assert told.live[0] == told.live[2] != told.live[1]
    assert ("rolled_back", "ada", "people complained") == (
        third["live"]["by"]["action"],
        third["live"]["by"]["actor"],
        third["live"]["because"],
    )
    assert second["live"]["verdict"]["passed"] is True
    assert list(told.days) == second["live"]["dataset"]["partitions"]
    assert second["live"]["by"]["run"]
    assert third["rollout"] == told.json("status")["pipelines"][0]["rollout"]
    assert third["live"] == told.json("history", P, "--at", "now")["live"]


def iso(at):
    """A time as --at takes it, with all its digits."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat()


def test_the_timeline_joins_in_pages_and_is_whole(told):
    """Everything that happened in order, from the newest page to the oldest; its chain verified."""
    whole = told.json("history", P, "--verify", "--limit", "0")
    assert whole["verified"] == len(whole["decisions"])
    assert whole["next"] is None
    kinds = [one["kind"] for one in whole["decisions"]]
    assert {"gated", "deployed", "promoted", "rolled back"} <= set(kinds)
    assert "rolled back" == kinds[-1]
    assert f"champion {told.live[0][1][:12]}" in whole["decisions"][-1]["changed"]

    pages, before = [], []
    while True:
        page = told.json("history", P, "--limit", "2", *before)
        pages = page["decisions"] + pages
        if page["next"] is None:
            break
        before = ["--before", page["next"]]
    assert [one["seq"] for one in whole["decisions"]] == [one["seq"] for one in pages]
    assert [one["changed"] for one in whole["decisions"]] == [one["changed"] for one in pages]
    assert (told.home / "logs" / "history.anchors").is_file()


def test_why_leads_from_either_end(told):
    """From the live model to its objects, and from an object to every model that knew it."""
    live, lost = told.live[2][1], told.live[1][1]
    chain = told.json("why", P)
    assert (live, 2) == (chain["live"], len(chain["served"]))
    assert [None, 0] != [chain["served"][-1]["until"], len(chain["partitions"])]
    assert all(part["checks"]["passed"] for part in chain["partitions"])
    other = told.json("why", P, "--version", lost[:12])
    assert (None, lost) == (other["live"], other["model_version"])
    assert other["served"][0]["until"] is not None

    key = f"{P}/dt={told.days[2]}/tumours.csv"
    assert [lost] == [one["version"] for one in told.json("why", P, "--object", key)["models"]]
    old = told.json("why", P, "--object", f"dt={told.days[0]}/tumours.csv")
    assert {live, lost} == {one["version"] for one in old["models"]}
    assert "took traffic" in told("why", P, "--object", key).stdout
    said = told("why", P, "--object", "nothing.csv", status=1)
    assert "no event has this key" in said.stderr
    assert 2 == told("why", P, "--object", key, "--version", live, status=2).exit_code


def test_a_request_is_led_back_to_its_data(told):
    """Who answered, how it was routed, and the chain behind that model."""
    log = open_platform(load_settings(told.home, told.pipelines)).log
    variant, version = told.live[1]
    asked = Prediction(
        pipeline=P, request_id="req-1", entity_id="ada", rollout_id="r", assigned=variant,
        challenger=False, share=0.0, served=variant, model_version=version, at=told.times[2],
        latency=0.01, rows=1, answers=json.dumps([{"label": "benign", "score": 0.9}]).encode(),
    )  # fmt: skip
    assert [True] == log.append([asked])

    found = told.json("why", P, "--request", "req-1")
    assert version == found["request"]["model_version"] == found["chain"]["model_version"]
    assert version == found["then"]["live"]["subject"]
    assert version in told("why", P, "--request", "req-1").stdout.replace("\n", "")
    assert "is not in the prediction log" in told("why", P, "--request", "x", status=1).stderr


def test_other_commands_tell_the_same_story(told):
    """compare, score and simulate on the same home; score and simulate leave the registry alone."""
    first, second = told.live[0][1], told.live[1][1]
    compared = told.json("compare", P, "champion", second[:12])
    assert [told.days[2]] == compared["data"]["only_b"]
    assert first[:12] in told("compare", P, first, second).stdout

    out = told.root / "scores.parquet"
    scored = told.json("score", P, "--partition", told.days[2], "--output", out)
    assert (first, scored["rows"]) == (scored["model_version"], pl.read_parquet(out).height)
    refused = told("score", P, "--partition", told.days[2], "--version", "0" * 12, status=1)
    assert "NotProven" in refused.stderr

    plot = told.root / "what-if.svg"
    found = told.json("simulate", P, "--set", "retrain.min_new_rows=100000", "--plot", plot)
    judged = [one for one in told.json("history", P)["decisions"] if one["kind"] == "gated"]
    trainings = found["trainings"]
    assert ([], len(judged)) == (trainings["simulated"], len(trainings["real"]))
    drawn = plot.read_bytes()
    assert drawn.startswith(b"<?xml")
    told("simulate", P, "--set", "retrain.min_new_rows=100000", "--plot", plot)
    assert drawn == plot.read_bytes()
    assert f"{len(judged)} really" in told("simulate", P).stdout
