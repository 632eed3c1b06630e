"""Pipeline files: what is read, what is refused, and that a refusal names file, line and field."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ml_control.errors import InvalidSpec
from ml_control.services.authoring.pipelines import read_folder, read_pipeline

EXAMPLES = Path(__file__).parents[2] / "pipelines"
GOOD = """\
type: ml_control.components.ModelPipeline
attributes:
  description: what it is for
  source:
    format: csv
    partition: {by: day, start: "2024-01-01"}
    settle: 2 s
  columns:
    target: label
    task: binary
    positive: "yes"
    features:
      - {name: age, type: number, min: 0}
      - {name: job, type: category}
  quality:
    min_rows: 10
  gates:
    metrics:
      auc: {min: 0.8}
"""


@pytest.fixture
def put(tmp_path):
    """Writes a pipeline file and gives its path."""

    def write(text=GOOD, name="people"):
        file = tmp_path / name / "defs.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    return write


def line_of(text, part):
    """The number of the line in which a text first occurs."""
    return text[: text.index(part)].count("\n") + 1


def refusal(file, *allowed):
    with pytest.raises(InvalidSpec) as refused:
        read_pipeline(file, allowed)
    return refused.value


def test_a_pipeline_is_named_after_its_folder(put):
    """What the file does not say has its default; durations are seconds."""
    pipeline = read_pipeline(put())

    assert "people" == pipeline.name
    assert 2.0 == pipeline.spec.source.settle
    assert ["age", "job"] == [feature.name for feature in pipeline.spec.columns.features]
    assert 90 == pipeline.spec.training.window.partitions
    assert pipeline.suite is None


def test_the_examples_load():
    """The pipelines that ship are whole, with their suites."""
    folder = read_folder(EXAMPLES)

    assert {} == folder.broken
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == set(folder.found)
    assert all(pipeline.suite for pipeline in folder.found.values())


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("min_rows: 10", "min_rows: 0", "quality.min_rows", "greater than or equal to 1"),
        ("min_rows: 10", "min_rowz: 10", "quality.min_rowz", "Extra inputs"),
        ("task: binary", "task: ranking", "columns.task", "'binary', 'multiclass'"),
        ("type: category", "type: text", "columns.features.1.type", "'number' or 'category'"),
        ("format: csv", "format: xml", "source.format", "'csv'"),
        ("settle: 2 s", "settle: 2", "source.settle", "not a duration"),
        ("settle: 2 s", "settle: 2 hours", "source.settle", "not a duration"),
        ("settle: 2 s", "settle: -1 s", "source.settle", "not a duration"),
        ("settle: 2 s", "settle: 2 h", "source.settle", "less than or equal to 3600"),
        ('"2024-01-01"', '"2024-13-01"', "source.partition.start", "month"),
        ("auc: {min: 0.8}", "auc: {}", "gates.metrics.auc", "needs min or max"),
        ("auc: {min: 0.8}", "auc: {min: .nan}", "gates.metrics.auc.min", "finite"),
        ('positive: "yes"', "ignore: []", "columns", "needs positive"),
        ("  source:", "  sources: {}\n  source:", "sources", "Extra inputs"),
        ("{name: job,", "{name: age,", "columns", "features named twice: age"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(put, old, new, field, words):
    """The refusal says file, line, field and what was expected there."""
    text = GOOD.replace(old, new)
    file = put(text)
    last = field.rpartition(".")[2]
    part = new.removeprefix("  ") if last == "1" or "." not in field else new
    expected = line_of(text, f"{field}:" if "." not in field else part)

    error = refusal(file)

    assert f"{file}:{expected} attributes.{field}" == error.object
    assert words in error.reason


def test_a_refusal_quotes_what_was_given_and_counts_the_rest(put):
    """The first problem is told in full, the others by number."""
    error = refusal(
        put(GOOD.replace("min_rows: 10", "min_rows: -3").replace("task: binary", "task: x"))
    )

    assert "got 'x'" in error.reason
    assert "1 more problems in this file" in error.reason


def test_a_gate_on_a_metric_of_another_task_names_those_there_are(put):
    """Gates name metrics that the task has."""
    error = refusal(put(GOOD.replace("auc: {min", "rmse: {max")))

    assert "gates name rmse, which binary does not have" in error.reason
    assert "accuracy" in error.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type: [unclosed\n", "not valid YAML"),
        ("type: x\n\tattributes: {}\n", "not valid YAML"),
        ("- a\n- b\n", "has no type"),
        ("", "has no type"),
        ("attributes: {}\n", "has no type"),
        ("type: ml_control.components.ModelPipeline\n", "Field required"),
        ("type: ml_control.components.ModelPipeline\nattributes: [1]\n", "dictionary"),
        ("type: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("type: a\n---\ntype: b\n", "not valid YAML"),
        ("type: " + "[" * 100_000, "nests too deeply"),
    ],
)
def test_what_is_no_pipeline_file_is_refused(put, text, words):
    """Every malformed file is an ``InvalidSpec`` that names it."""
    file = put(text)

    error = refusal(file)

    assert error.object.startswith(str(file))
    assert words in error.reason


def test_a_syntax_error_is_named_by_its_line(put):
    """The line of a YAML error is the one that the parser stopped at."""
    text = GOOD.replace("    target: label", "    target: label: other")
    file = put(text)

    error = refusal(file)

    assert f"{file}:{line_of(text, 'target: label')}" == error.object


@pytest.mark.parametrize("value", ["2024-13-01", "9" * 5000])
def test_a_value_that_yaml_cannot_make_is_named_by_its_line(put, value):
    """What looks like a date or a number and is none is refused like any other wrong value."""
    text = GOOD.replace('"2024-01-01"', value)
    file = put(text)

    error = refusal(file)

    assert f"{file}:{line_of(text, value)}" == error.object
    assert "is not valid YAML" in error.reason


def test_an_alias_bomb_is_refused_at_once(put):
    """Nested aliases are refused by line before anything is expanded."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    file = put(GOOD + bomb)
    began = time.perf_counter()

    error = refusal(file)

    assert time.perf_counter() - began < 5.0
    assert f"{file}:{line_of(GOOD + bomb, 'a1:')}" == error.object
    assert "uses the alias *a0" in error.reason


def test_an_oversized_file_is_not_parsed(put):
    """A file beyond the limit is refused for its size."""
    error = refusal(put(GOOD + "#" * 1_000_001))

    assert "larger than 1,000,000 bytes" in error.reason


def test_text_that_is_not_utf8_is_refused(put):
    """Bytes of another encoding are no pipeline."""
    file = put()
    file.write_bytes(b"type: \xff\xfe\n")

    assert "is not UTF-8 text" == refusal(file).reason


def test_another_component_is_not_ours(put):
    """A file of some other component is left alone, and does not count as broken."""
    file = put("type: some.other.Component\nattributes: {}\n")

    assert read_pipeline(file) is None
    assert ({}, {}) == (read_folder(file.parents[1]).found, read_folder(file.parents[1]).broken)


@pytest.mark.parametrize("template", ["{{ env.SECRET }}", "{{ open('/etc/passwd') }}", "{{ }}"])
def test_templates_that_are_not_allowed_are_refused(put, monkeypatch, template):
    """Only allow-listed environment variables are read; nothing else is evaluated."""
    monkeypatch.setenv("SECRET", "hunter2")
    file = put(GOOD.replace("what it is for", f'"{template}"'))

    error = refusal(file, "OTHER")

    assert f"the template {template} is not allowed" == error.reason
    assert "yaml_env" in error.next
    assert "hunter2" not in str(error)


def test_an_allowed_variable_is_substituted(put, monkeypatch):
    """A listed variable's value takes its place, as text and not as YAML."""
    monkeypatch.setenv("TEAM", "growth: {a: 1}")

    pipeline = read_pipeline(put(GOOD.replace("what it is for", '"by {{ env.TEAM }}"')), ("TEAM",))

    assert "by growth: {a: 1}" == pipeline.spec.description


def test_a_substituted_value_is_checked_like_a_written_one(put, monkeypatch):
    """A variable cannot lead where the file itself could not."""
    monkeypatch.setenv("SUITE", "../suite.json")

    error = refusal(put(with_suite('"{{ env.SUITE }}"')), "SUITE")

    assert "'../suite.json' lies outside the pipeline's folder" == error.reason


def test_an_allowed_variable_that_is_not_set_is_named(put, monkeypatch):
    """An absent variable is an error, not an empty text."""
    monkeypatch.delenv("ABSENT", raising=False)

    error = refusal(put(GOOD.replace("what it is for", '"{{ env.ABSENT }}"')), "ABSENT")

    assert "ABSENT is not set" == error.reason


def with_suite(name="suite.json"):
    return GOOD.replace("min_rows: 10", f"min_rows: 10\n    expectations: {name}")


@pytest.mark.parametrize("name", ["../suite.json", "/etc/hostname", "a/../../suite.json"])
def test_a_suite_outside_the_folder_is_refused(put, name):
    """A pipeline reads nothing that lies elsewhere."""
    file = put(with_suite(name))
    (file.parents[1] / "suite.json").write_text('{"name": "x", "expectations": []}')

    assert "lies outside the pipeline's folder" in refusal(file).reason


def test_a_link_to_a_suite_elsewhere_is_refused(put):
    """A symbolic link does not lead out of the folder either."""
    file = put(with_suite())
    outside = file.parents[1] / "elsewhere.json"
    outside.write_text('{"name": "x", "expectations": []}')
    (file.parent / "suite.json").symlink_to(outside)

    assert "lies outside the pipeline's folder" in refusal(file).reason


def test_a_suite_that_is_not_there_is_named(put):
    """The missing file is named, not the pipeline."""
    file = put(with_suite())

    error = refusal(file)

    assert str(file.parent / "suite.json") == error.object
    assert "No such file" in error.reason


def test_broken_json_is_named_by_its_line(put):
    """A suite's syntax error has the suite's file and line."""
    file = put(with_suite())
    suite = file.parent / "suite.json"
    suite.write_text('{\n  "name": "x",\n  "expectations": [,]\n}\n')

    error = refusal(file)

    assert f"{suite}:3" == error.object
    assert "is not valid JSON" in error.reason


@pytest.mark.parametrize("text", ["[]", "7", '{"name": "x"}', "[" * 100_000, "9" * 5000])
def test_json_that_is_no_suite_is_refused(put, text):
    """Any other JSON is an ``InvalidSpec``, also when it nests without end."""
    file = put(with_suite())
    (file.parent / "suite.json").write_text(text)

    assert "InvalidSpec" == refusal(file).kind


def test_a_suite_on_an_undeclared_column_is_refused(put):
    """A suite names only columns that the pipeline declares."""
    file = put(with_suite())
    (file.parent / "suite.json").write_text(
        '{"name": "x", "expectations": [{"type": "expect_column_values_to_not_be_null", '
        '"kwargs": {"column": "salary"}}]}'
    )

    assert "salary" in str(refusal(file))


def test_an_unknown_container_is_refused(put):
    """Only containers whose XGBoost is known can be promised anything about."""
    error = refusal(put(GOOD + '  training: {container: "9.9-9"}\n'))

    assert "9.9-9" in str(error)


def test_one_broken_pipeline_does_not_hide_the_others(put):
    """Broken ones are kept with their error, which asking for them raises."""
    put(name="good")
    file = put("type: [", name="bad")

    folder = read_folder(file.parents[1])

    assert (["good"], ["bad"]) == (list(folder.found), list(folder.broken))
    assert "good" == folder.get("good").name
    with pytest.raises(InvalidSpec, match="not valid YAML"):
        folder.get("bad")
    with pytest.raises(InvalidSpec, match=r"there is no such pipeline \(known: bad, good\)"):
        folder.get("ugly")


def test_a_name_used_twice_is_refused_for_the_second(put):
    """Two folders cannot share a name: it is the first part of every key."""
    put(name="first")
    file = put(GOOD.replace("attributes:", "attributes:\n  name: first"), name="second")

    folder = read_folder(file.parents[1])

    assert ["first"] == list(folder.found)
    assert "the name 'first' is used twice" == folder.broken["second"].reason


def test_a_folder_name_that_is_no_pipeline_name_is_refused(put):
    """A name from the folder obeys the same rule as a written one."""
    error = refusal(put(name="Bad-Name"))

    assert "'Bad-Name' is not a pipeline name" in error.reason


def test_an_absent_folder_holds_no_pipeline(tmp_path):
    """A folder that is not there is empty, not an error."""
    folder = read_folder(tmp_path / "nowhere")

    assert ({}, {}) == (folder.found, folder.broken)
