"""The command line as scripts use it: a pipeline from a sample to predictions, then every view."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ml_control.core.records import EVENT_STATES
from ml_control.services.models.verify import verify
from ml_control.testing.samples import write_tumours

DAYS = ["2024-03-04", "2024-03-05"]


@pytest.fixture(scope="module")
def shell(tmp_path_factory, make_shell):
    """init, check, ingest and run on a small table: a model is live."""
    shell = make_shell(tmp_path_factory.mktemp("cli"))
    shell.files = write_tumours(shell.root / "data", DAYS)
    try:
        shell.said = {
            "init": shell(
                "init", shell.pipelines / "cells", "--from", shell.files[0], "--target", "diagnosis"
            ),
            "check": shell("check"),
            "ingest": shell.json("ingest", "cells", *shell.files),
            "run": shell("run", "cells"),
        }
        yield shell
    finally:
        shell("down")


@pytest.fixture(scope="module")
def sample(shell):
    """Three rows of the table without their diagnosis, and with it."""
    with shell.files[1].open(newline="") as stream:
        header, *rows = list(csv.reader(stream))
    path = shell.root / "sample.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header[:-1], *(row[:-1] for row in rows[:3])])
    return path, header[:-1], rows[:3]


def test_a_sample_becomes_a_pipeline_that_runs_as_it_is(shell):
    """Each step says what it did and what comes next."""
    said = shell.said

    assert f"wrote {shell.pipelines / 'cells' / 'defs.yaml'}" in said["init"].stdout
    assert "next: ml-control" in said["init"].stdout
    assert "ok: cells: csv, binary, container 3.2-0\n" == said["check"].stdout
    assert {"seen": 2, "recorded": 2, "refused": 0} == said["ingest"]
    assert "cells: 0 new objects; ingesting 2 partitions" in said["run"].stdout
    assert "is live on a (" in said["run"].stdout


def test_status_tells_what_is_live(shell):
    """The shape that scripts rely on: live variant, candidate, verdict, ledger, what is next."""
    found = shell.json("status")

    (status,) = found["pipelines"]
    assert {} == found["broken"]
    assert "cells" == status["name"]
    live = status["live"]
    assert ("a", "cells-a", "InService") == (live["variant"], live["endpoint"], live["state"])
    assert status["candidate"] == live["model_version"] == status["rollout"]["champion"]
    assert (True, []) == (status["verdict"]["passed"], status["verdict"]["failed"])
    assert 0.9 < status["verdict"]["metrics"]["auc"] <= 1.0
    assert {**dict.fromkeys(EVENT_STATES, 0), "done": 2} == status["ledger"]
    assert {"decision", "because", "triggers", "budget_left"} <= set(status["retrain"])
    assert "wait" == status["retrain"]["decision"]
    assert status["paused"] is False
    assert Path(status["report"]).is_file()


def test_predictions_have_the_gateways_shape_and_are_right(shell, sample):
    """One prediction for each record, with label, score and probabilities."""
    path, _, rows = sample

    answer = shell.json("predict", "cells", "--input", path)

    assert {"request_id", "variant", "model_version", "predictions"} == set(answer)
    assert "a" == answer["variant"]
    assert [row[-1] for row in rows] == [item["label"] for item in answer["predictions"]]
    for item in answer["predictions"]:
        assert 1.0 == pytest.approx(sum(item["probabilities"].values()))
        assert item["score"] == pytest.approx(item["probabilities"]["malignant"])


def test_records_as_json_are_predicted_like_the_table(shell, sample):
    """A JSON document of the HTTP form gives the same predictions as the CSV file."""
    path, header, rows = sample
    records = [dict(zip(header, map(float, row[:-1]), strict=True)) for row in rows]
    document = shell.root / "records.json"
    document.write_text(json.dumps({"records": records}))

    by_table = shell.json("predict", "cells", "--input", path)
    by_records = shell.json("predict", "cells", "--input", document)

    assert by_table["predictions"] == by_records["predictions"]


def test_events_tell_what_became_of_each_object(shell):
    """Every ingested file is done, in the partition that its folder names."""
    events = shell.json("events", "cells")["events"]
    one = shell.json("events", "cells", "--partition", DAYS[0], "--state", "done")["events"]
    none = shell.json("events", "cells", "--state", "quarantined")["events"]

    assert DAYS == [event["partition"] for event in events]
    assert {"done"} == {event["state"] for event in events}
    assert [f"cells/dt={DAYS[0]}/tumours.csv"] == [event["key"] for event in one]
    assert [] == none


def test_models_are_listed_with_their_verdicts(shell):
    """The one model is live, trained on both days, and its verdict names every gate."""
    (model,) = shell.json("models", "cells")["models"]

    assert model["live"] is True
    assert DAYS == model["partitions"]
    assert 569 == model["rows"]
    gates = {gate["name"]: gate["passed"] for gate in model["verdict"]["gates"]}
    assert {"data_checks", "archive", "golden", "witness", "metric:auc", "champion"} <= set(gates)
    assert all(gates.values())


def test_the_history_is_a_verified_chain(shell):
    """Judged, deployed, promoted, in this order, each decision sealed over the one before."""
    history = shell.json("history", "cells", "--verify")

    decisions = history["decisions"]
    assert ["gated: passed", "deployed", "promoted"] == [item["action"] for item in decisions]
    assert 3 == history["verified"]
    assert [""] + [item["hash"] for item in decisions[:-1]] == [
        item["previous"] for item in decisions
    ]


def test_history_answers_what_was_live_at_a_time(shell):
    """Before the promotion nothing was live; afterwards the champion."""
    champion = shell.json("status")["pipelines"][0]["rollout"]["champion"]

    assert shell.json("history", "cells", "--at", "2024-01-01")["live"] is None
    assert champion == shell.json("history", "cells", "--at", "2124-01-01")["live"]["subject"]


def test_why_leads_from_objects_to_the_live_model(shell):
    """The chain names objects, data versions, training job, verdict and promotion."""
    why = shell.json("why", "cells")

    assert why["live"] == why["promoted"]["subject"]
    assert why["verdict"]["passed"] is True
    assert why["training_job"].startswith("cells-")
    assert why["runs"]["trained"]
    assert [(day, [f"cells/dt={day}/tumours.csv"]) for day in DAYS] == [
        (part["partition"], part["objects"]) for part in why["partitions"]
    ]


@pytest.mark.parametrize("command", ["status", "events", "models", "history", "why"])
def test_every_view_also_prints_for_people(shell, command):
    """Without --json each view is text that names the pipeline or its live model."""
    version = shell.json("why", "cells")["live"]

    text = shell(command, *([] if command == "status" else ["cells"])).stdout

    assert "cells" in text or version[:12] in text
    with pytest.raises(ValueError, match=r"Expecting value|Extra data"):
        json.loads(text)


def test_the_live_archive_is_proven_by_verify(shell):
    """``verify`` accepts what ``run`` deployed, with its own golden records."""
    folder = Path(shell.json("models", "cells")["models"][0]["report"]).parent
    archive, golden = folder / "model.tar.gz", folder / "golden.json"

    report = shell.json("verify", archive, "--golden", golden)

    direct = verify(archive.read_bytes(), "3.2-0", golden.read_bytes(), name=str(archive))
    assert (True, 0) == (report["passed"], report["golden"]["mismatched_rows"])
    assert direct.passed


def test_an_archive_that_is_none_is_refused(shell):
    """``verify`` ends with 1 and its report as JSON."""
    file = shell.root / "not.tar.gz"
    file.write_bytes(b"no archive")

    report = shell.json("verify", file, status=1)

    assert report["passed"] is False


def test_the_same_files_again_are_known(shell):
    """Ingesting twice records nothing new."""
    assert {"seen": 2, "recorded": 0, "refused": 0} == shell.json("ingest", "cells", *shell.files)


def test_a_backfill_of_unchanged_data_leaves_the_model(shell):
    """Re-materialising gives the same data versions, so the same model stays live."""
    before = shell.json("why", "cells")

    shell("backfill", "cells", "--from", DAYS[0], "--to", DAYS[1])

    after = shell.json("why", "cells")
    assert (before["live"], before["partitions"]) == (after["live"], after["partitions"])


@pytest.mark.parametrize(
    ("arguments", "kind", "object"),
    [
        (["why", "nothing"], "InvalidSpec", "pipeline nothing"),
        (["ingest", "cells", "/nowhere.csv"], "BadObject", "/nowhere.csv"),
        (["predict", "cells", "--input", "/nowhere.csv"], "BadObject", "/nowhere.csv"),
        (["history", "cells", "--at", "yesterday"], "InvalidSpec", "--at yesterday"),
    ],
)
def test_a_refusal_names_kind_object_reason_and_next_step(shell, arguments, kind, object):
    """Two lines on stderr for people, one document with --json, exit status 1 for both."""
    told = shell(*arguments, status=1)
    error = shell.json(*arguments, status=1)["error"]

    assert (kind, object) == (error["kind"], error["object"])
    assert "" == told.stdout
    assert [
        f"error: {kind}: {object}: {error['reason']}",
        f"next: {error['next']}",
    ] == told.stderr.splitlines()


@pytest.mark.parametrize("key", ["2023-12-31", "2124-01-01", "monday"])
def test_a_partition_that_is_none_is_refused(shell, key):
    """``run`` takes only keys of the pipeline's own partitions, and says which there are."""
    told = shell("run", "cells", "--partition", key, status=1)

    assert (
        f"error: InvalidSpec: cells partition {key}: is none of its day partitions" in told.stderr
    )


def test_a_backfill_of_nothing_is_refused(shell):
    """A range without data is a mistake, not a training."""
    told = shell("backfill", "cells", "--from", "2024-06-01", status=1)

    assert "hold no data" in told.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["events"],
        ["events", "cells", "--state", "lost"],
        ["backfill", "cells"],
        ["status", "--jsonn"],
    ],
)
def test_wrong_usage_ends_with_two(shell, arguments):
    """Usage errors are told from refusals by their status."""
    told = shell(*arguments, status=2)

    assert "Usage:" in told.stderr


def test_a_broken_pipeline_is_told_and_hides_no_other(shell):
    """``check`` names it with 1; ``status`` shows the others."""
    folder = shell.pipelines / "broken"
    folder.mkdir()
    try:
        (folder / "defs.yaml").write_text("type: ml_control.components.ModelPipeline\n")
        checked = shell("check", status=1)
        listed = shell.json("check", status=1)
        status = shell.json("status")
    finally:
        (folder / "defs.yaml").unlink()
        folder.rmdir()

    assert "ok: cells" in checked.stdout
    assert f"error: InvalidSpec: {folder / 'defs.yaml'}" in checked.stderr
    assert (["cells"], ["broken"]) == (listed["ok"], list(listed["broken"]))
    assert ["cells"] == [item["name"] for item in status["pipelines"]]
