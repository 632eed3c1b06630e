"""What people are told, through the acts that find the trouble, and in ``status``."""

from __future__ import annotations

import json

import pytest

from ml_control.cli.context import App
from ml_control.cli.main import cli
from ml_control.cli.processes import EndpointKeeper
from ml_control.errors import NotProven, Retryable
from ml_control.services.alerts import attend
from ml_control.services.arrivals.requests import plan, replay
from ml_control.services.arrivals.sweep import sweep
from ml_control.services.data.dataset import admit, process
from ml_control.services.releases import deployment

P, DAY = "tumours", "2024-03-04"


def kinds(home, pipeline=P):
    """The kinds of the open alerts."""
    return [alert.kind for alert in home.platform.registry.alerts.open(pipeline)]


def told(home):
    """(pipeline, kind) of what was delivered."""
    file = home.path / "logs" / "alerts.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [(line["pipeline"], line["kind"]) for line in map(json.loads, lines)]


@pytest.fixture
def status(home):
    """``status`` as text, both streams, and as the document."""
    from click.testing import CliRunner

    options = ["--home", str(home.path), "--pipelines", str(home.pipelines), "status"]

    def ask(*more):
        done = CliRunner().invoke(cli, [*options, *more])
        assert 0 == done.exit_code, done.output
        return done

    return ask


def test_attempts_used_up_after_admission_are_told_until_it_is_replayed(home, monkeypatch):
    """Objects that were admitted but not processed are given up with an alert, once."""
    monkeypatch.setenv("ML_CONTROL_RETRY_SECONDS", "0")
    monkeypatch.setenv("ML_CONTROL_MAX_ATTEMPTS", "2")
    home.land(DAY)
    home.take_in()
    platform, pipeline = home.platform, home.pipeline()
    admit(platform, pipeline, DAY, "a run")
    for _ in range(4):
        if plan(platform, pipeline, in_flight=set(), limit=1).wanted:
            platform.registry.partitions.begin(P, DAY, platform.registry.clock())

    assert ["given-up"] == kinds(home)
    (alert,) = platform.registry.alerts.open(P)
    assert (f"{P} {DAY}", "2 runs ended without processing it") == (alert.object, alert.reason)
    assert (1, 0) == (attend(platform, P), attend(platform, P))
    replay(platform, pipeline)
    attend(platform, P)
    assert [] == kinds(home)


def test_a_refused_partition_is_told_even_if_its_run_died_before(home):
    """The sweep tells of a failed audit; a corrected file ends it."""
    home.edit("min_rows: 20", "min_rows: 100")
    home.land(DAY, rows=40)
    home.take_in()
    platform, pipeline = home.platform, home.pipeline()
    admit(platform, pipeline, DAY, "a run")
    assert not process(platform, pipeline, DAY, "a run").published
    assert [] == kinds(home)  # the run died before it told

    sweep(platform, pipeline)

    (alert,) = platform.registry.alerts.open(P)
    assert "refused" == alert.kind
    assert alert.reason.startswith("failed its data checks and was not published: ")
    assert 1 == attend(platform, P)
    assert ["refused"] == kinds(home)
    home.edit("min_rows: 100", "min_rows: 20")
    home.land(DAY)
    home.take_in()
    admit(platform, home.pipeline(), DAY, "a run")
    assert process(platform, home.pipeline(), DAY, "a run").published
    attend(platform, P)
    assert [] == kinds(home)


def test_a_variant_that_cannot_come_back_is_told_and_ends(home, monkeypatch):
    """The keeper tells of a refusal, not of what passes by itself; a good look ends it."""
    app = App(home.path, home.pipelines)
    monkeypatch.setattr("ml_control.cli.processes._RETRY_SECONDS", 0.0)
    answers = [
        Retryable("endpoint tumours-a", "is busy", "wait"),
        NotProven("model abc", "its bytes are not the ones that were judged", "train again"),
        NotProven("model abc", "its bytes are not the ones that were judged", "train again"),
        None,
    ]

    def ensure(*_):
        if (error := answers.pop(0)) is not None:
            raise error
        return {}

    monkeypatch.setattr(deployment, "ensure_serving", ensure)
    keeper, seen = EndpointKeeper(app), []
    for _ in range(4):
        keeper.look()
        seen.append(kinds(home))

    assert [[], ["endpoint"], ["endpoint"], []] == seen
    assert [(P, "endpoint")] == told(home)


def test_files_of_a_renamed_pipeline_are_not_ignored_in_silence(home, status):
    """``status`` names the folder, the files and the step; ``up`` tells once, until it is over."""
    home.land(DAY)
    (home.pipelines / P).rename(home.pipelines / "growths")
    keeper = EndpointKeeper(App(home.path, home.pipelines))
    for _ in range(2):
        keeper.look()

    (found,) = json.loads(status("--json").stdout)["unclaimed"]
    assert f"1 files wait here, and there is no pipeline {P}" == found["reason"]
    assert str(home.path / "landing" / P) == found["object"]
    text = status().output
    assert "unclaimed: " in text
    assert f"add pipelines/{P}/defs.yaml" in text
    assert [(P, "unclaimed")] == told(home)
    assert ["unclaimed"] == kinds(home)

    (home.pipelines / "growths").rename(home.pipelines / P)
    keeper.look()

    assert [] == kinds(home)
    assert [] == json.loads(status("--json").stdout)["unclaimed"]


def test_status_says_what_waits_and_what_is_wrong(home, status):
    """A person reads why a partition waits, and the newest alert with its step."""
    from ml_control.services.alerts import raise_alert

    home.edit("  format: csv", "  format: csv\n    quiet: 1 h\n    max_wait: 2 h")
    home.land(DAY)
    home.take_in()
    raise_alert(home.platform, P, "endpoint", "tumours-a", "it is down", "look at it")

    text = status().output

    assert f"{P} {DAY}: waiting: 1 object, quiet for" in text
    assert f"{P}: 1 open alert, the newest of " in text
    assert f"endpoint: {P} tumours-a: it is down (next: look at it)" in text
