"""The command line without a pipeline, refused, asked for help, and its documentation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from ml_control.cli.main import COMMANDS, cli
from ml_control.settings import load_settings
from ml_control.testing.samples import write_tumours

DAYS = ["2024-03-04", "2024-03-05"]
DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.fixture
def empty(tmp_path, make_shell):
    """A home with no pipeline; whatever the test starts there is ended."""
    shell = make_shell(tmp_path)
    yield shell
    shell("down")


def test_an_empty_folder_of_pipelines_is_told(empty):
    """``check`` without a pipeline is a refusal that says how to make one."""
    error = empty.json("check", status=1)["error"]

    assert (str(empty.pipelines), "holds no pipeline") == (error["object"], error["reason"])
    assert "ml-control init" in error["next"]


def test_init_does_not_write_over_anything(empty):
    """A folder that is not empty, a bad name or an absent column writes nothing."""
    (file,) = write_tumours(empty.root / "data", DAYS[:1])
    kept = empty.pipelines / "kept"
    kept.mkdir(parents=True)
    (kept / "notes.txt").write_text("mine")

    source = ["--from", file, "--target"]
    assert "not an empty folder" in empty("init", kept, *source, "diagnosis", status=1).stderr
    bad = empty("init", empty.pipelines / "Bad Name", *source, "diagnosis", status=1)
    assert "is not a pipeline name" in bad.stderr
    assert "colour" in empty("init", empty.pipelines / "new", *source, "colour", status=1).stderr
    assert ["kept"] == [path.name for path in empty.pipelines.iterdir()]
    assert ["notes.txt"] == [path.name for path in kept.iterdir()]


def test_nothing_live_is_no_error_to_ask_about(empty):
    """Views of a new home answer; a prediction is refused with the step that helps."""
    (file,) = write_tumours(empty.root / "data", DAYS[:1])
    empty("init", empty.pipelines / "cells", "--from", file, "--target", "diagnosis")

    (status,) = empty.json("status")["pipelines"]
    why = empty.json("why", "cells")
    error = empty.json("predict", "cells", "--input", file, status=1)["error"]

    assert (None, None, None) == (status["live"], status["candidate"], status["verdict"])
    assert (None, "nothing was deployed yet") == (why["live"], why["because"])
    assert ("NotProven", "run 'ml-control run cells'") == (error["kind"], error["next"])
    assert [] == empty.json("models", "cells")["models"]
    assert [] == empty.json("history", "cells", "--verify")["decisions"]


def test_a_run_that_is_refused_says_why_and_serves_nothing(empty):
    """Data of one class is refused by ``run`` with the failed check."""
    (file,) = write_tumours(empty.root / "data", DAYS[:1])
    empty("init", empty.pipelines / "cells", "--from", file, "--target", "diagnosis")
    lines = [line for line in file.read_text().splitlines() if not line.endswith("malignant")]
    file.write_text("\n".join(lines) + "\n")
    empty("ingest", "cells", file)

    told = empty("run", "cells", status=1)

    assert "error: NotProven: cells" in told.stderr
    assert "single_class" in told.stderr
    (status,) = empty.json("status")["pipelines"]
    assert (None, [DAYS[0]]) == (status["live"], status["partitions"]["refused"])


def test_down_ends_the_endpoint_servers(empty):
    """What ``run`` started is gone after ``down``, and ``predict`` brings it back."""
    (file,) = write_tumours(empty.root / "data", DAYS[:1])
    empty("init", empty.pipelines / "cells", "--from", file, "--target", "diagnosis")
    empty("ingest", "cells", file)
    empty("run", "cells")
    (before,) = empty.json("status")["pipelines"]
    served = httpx.get(f"{before['live']['url']}/ping", timeout=10).status_code

    empty("down")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{before['live']['url']}/ping", timeout=10)
    (after,) = empty.json("status")["pipelines"]
    answer = empty.json("predict", "cells", "--input", file)

    assert 200 == served
    assert "InService" != after["live"]["state"]
    assert before["live"]["model_version"] == answer["model_version"]


def test_the_program_itself_ends_with_its_status_and_words(empty):
    """The installed module prints refusals on stderr and as JSON on stdout."""
    program = [sys.executable, "-m", "ml_control", *empty.options, "why", "nothing"]

    words = subprocess.run(program, capture_output=True, text=True, check=False)
    document = subprocess.run([*program, "--json"], capture_output=True, text=True, check=False)

    assert (1, 1) == (words.returncode, document.returncode)
    assert words.stderr.startswith("error: InvalidSpec: pipeline nothing: ")
    assert "\nnext: " in words.stderr
    assert "Traceback" not in words.stderr + document.stderr
    error = json.loads(document.stdout)["error"]
    assert {"kind", "object", "reason", "next"} <= set(error)


def test_settings_that_are_wrong_are_refused_by_name(empty, monkeypatch):
    """An environment variable out of range is named with what was given."""
    monkeypatch.setenv("ML_CONTROL_LEASE_SECONDS", "0")

    error = empty.json("status", status=1)["error"]

    assert ("InvalidSpec", "setting lease_seconds") == (error["kind"], error["object"])
    assert "ML_CONTROL_LEASE_SECONDS" in error["next"]


def test_options_win_over_the_environment(empty, monkeypatch, tmp_path):
    """--home and --pipelines decide, then variables."""
    monkeypatch.setenv("ML_CONTROL_HOME", str(tmp_path / "other"))

    assert empty.home == load_settings(empty.home, empty.pipelines).home
    assert tmp_path / "other" == load_settings().home


def test_every_command_has_help_and_described_options():
    """--help of each command has a sentence, and so has each of its options."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        told = CliRunner().invoke(cli, [name, "--help"])

        assert 0 == told.exit_code
        assert command.help, name
        assert command.help.splitlines()[0] in " ".join(told.stdout.split())
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts}"


def test_every_command_and_option_is_documented():
    """docs/cli.md names each command, and each of its options."""
    text = DOCS.read_text("utf-8")
    context = click.Context(cli)
    sections = {part.split("\n", 1)[0].strip("` "): part for part in text.split("\n### ")[1:]}

    assert set(COMMANDS) <= {name for title in sections for name in title.split("`, `")}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        section = next(part for title, part in sections.items() if name in title.split("`, `"))
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.opts[0] in section + text.split("\n## ")[0], f"{name} {option.opts}"


def test_the_group_lists_every_command_with_a_sentence():
    """``ml-control --help`` shows all of them, in the documented order."""
    text = CliRunner().invoke(cli, ["--help"]).stdout
    listed = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line]

    assert list(COMMANDS) == [word for word in listed if word in COMMANDS]


def test_schema_is_a_json_schema_with_every_field_described():
    """An editor that knows JSON Schema can explain each field of a pipeline file."""
    schema = json.loads(CliRunner().invoke(cli, ["schema"]).stdout)

    def described(field):
        return schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {}).get("description")

    objects = [schema, *schema["$defs"].values()]
    fields = [
        (item["title"], name, field.get("description") or described(field))
        for item in objects
        for name, field in item.get("properties", {}).items()
    ]
    assert [] == [(title, name) for title, name, description in fields if not description]
    assert len(fields) > 40
    assert all(item["additionalProperties"] is False for item in objects if "properties" in item)
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)


def test_help_is_fast_because_it_imports_nothing_heavy():
    """--help loads neither Dagster nor a numeric library."""
    program = (
        "import sys\nfrom ml_control.cli.main import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit: pass\n"
        "print('loaded', [m for m in ('dagster', 'numpy', 'xgboost') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )

    assert "loaded []" in done.stdout
