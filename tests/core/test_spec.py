"""The pipeline file: what may be written, and each refusal of what may not."""

from __future__ import annotations

import copy
import types
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ml_control.spec import (
    DEFAULT_METRIC,
    LOWER_IS_BETTER,
    METRICS,
    PipelineSpec,
    Section,
    parse_duration,
    print_duration,
)

TABLE = {
    "name": "tumours",
    "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
    "columns": {
        "target": "y",
        "task": "binary",
        "positive": "yes",
        "features": [{"name": "age", "type": "number"}, {"name": "city", "type": "category"}],
        "ignore": ["id"],
    },
}
IMAGES = {
    "source": {"format": "images", "partition": {"start": "2026-01-01"}},
    "columns": {"task": "multiclass"},
}


def changed(base, changes):
    """A pipeline file with some fields set, by dotted name."""
    document = copy.deepcopy(base)
    for name, value in changes.items():
        *path, last = name.split(".")
        place = document
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return document


def refusal(base, changes):
    """The field and the sentence of the one refusal that a change must get."""
    with pytest.raises(ValidationError) as refused:
        PipelineSpec.model_validate(changed(base, changes))
    (error,) = refused.value.errors()
    return ".".join(str(part) for part in error["loc"]), error["msg"]


def sections(kind=PipelineSpec):
    """Every section of the file."""
    found = {kind}
    waiting = [field.annotation for field in kind.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        waiting += typing.get_args(annotation)
        plain = isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias)
        if plain and issubclass(annotation, BaseModel) and annotation not in found:
            found |= sections(annotation)
    return found


def test_the_smallest_files_are_enough():
    """Source and columns are all that must be written; everything else has a working default."""
    table, images = PipelineSpec.model_validate(TABLE), PipelineSpec.model_validate(IMAGES)

    assert ("day", 2.0, "auc") == (
        table.source.partition.by,
        table.source.settle,
        table.champion_metric,
    )
    assert ("label", (), "accuracy") == (
        images.columns.target,
        images.columns.features,
        images.champion_metric,
    )


@pytest.mark.parametrize(
    "left_out",
    [
        "source",
        "columns",
        "source.format",
        "source.partition",
        "columns.task",
        "source.partition.start",
    ],
)
def test_what_must_be_written_is_named(left_out):
    """Leaving out a necessary field is refused by its name."""
    document = copy.deepcopy(TABLE)
    *path, last = left_out.split(".")
    place = document
    for part in path:
        place = place[part]
    del place[last]
    with pytest.raises(ValidationError) as refused:
        PipelineSpec.model_validate(document)

    (error,) = refused.value.errors()
    assert (left_out, "missing") == (".".join(error["loc"]), error["type"])


def test_every_field_is_described_and_every_section_closed():
    """Each field tells its meaning, each section refuses unknown keys and changes."""
    found = sections()
    assert {"Partitioning", "ImageShape", "FeatureColumn", "MetricGate", "ChampionGate"} <= {
        section.__name__ for section in found
    }
    for section in found:
        assert issubclass(section, Section)
        assert ("forbid", True) == (section.model_config["extra"], section.model_config["frozen"])
        assert all(field.description for field in section.model_fields.values())


@pytest.mark.parametrize(
    "section",
    [
        "-",
        "source.",
        "source.partition.",
        "source.image.",
        "columns.",
        "quality.",
        "training.",
        "training.window.",
        "training.split.",
        "retrain.",
        "gates.",
        "gates.champion.",
        "rollout.",
    ],
)
def test_a_misspelt_key_is_refused(section):
    """A key that no section knows is refused where it stands, never ignored."""
    name = f"{section.removeprefix('-')}minn_rows"

    assert (name, "Extra inputs are not permitted") == refusal(TABLE, {name: 3})


# (what, file, changes, field, part of the reason)
REFUSED = [
    ("format", TABLE, {"source.format": "xlsx"}, "source.format", "'jsonl' or 'images'"),
    ("cadence", TABLE, {"source.partition.by": "year"}, "source.partition.by", "'hour', 'day'"),
    ("no date", TABLE, {"source.partition.start": "soon"}, "source.partition.start", "date"),
    ("settle below 0", TABLE, {"source.settle": "4000 s"}, "source.settle", "3600"),
    ("height", IMAGES, {"source.image": {"height": 0}}, "source.image.height", "1"),
    ("colours", IMAGES, {"source.image": {"mode": "cmyk"}}, "source.image.mode", "'grey'"),
    ("task", TABLE, {"columns.task": "ranking"}, "columns.task", "'binary'"),
    ("no positive", TABLE, {"columns.positive": None}, "columns", "binary needs positive"),
    (
        "positive",
        TABLE,
        {"columns.task": "multiclass"},
        "columns",
        "positive belongs to task binary",
    ),
    ("target too", TABLE, {"columns.target": "age"}, "columns", "'age' cannot also be a feature"),
    ("ignored", TABLE, {"columns.ignore": ["age"]}, "columns", "both used and ignored: age"),
    ("ignored target", TABLE, {"columns.ignore": ["y"]}, "columns", "both used and ignored: y"),
    ("no features", TABLE, {"columns.features": []}, "", "must name at least one column"),
    (
        "image features",
        IMAGES,
        {"columns.features": TABLE["columns"]["features"]},
        "",
        "must be empty",
    ),
    (
        "twice",
        TABLE,
        {"columns.features": [{"name": "a", "type": "number"}] * 2},
        "columns",
        "named twice: a",
    ),
    (
        "no name",
        TABLE,
        {"columns.features": [{"name": "", "type": "number"}]},
        "columns.features.0.name",
        "1",
    ),
    (
        "text",
        TABLE,
        {"columns.features": [{"name": "a", "type": "text"}]},
        "columns.features.0.type",
        "'category'",
    ),
    (
        "range of a category",
        TABLE,
        {"columns.features": [{"name": "a", "type": "category", "min": 0}]},
        "columns.features.0",
        "a: min and max belong to type number",
    ),
    (
        "range upside down",
        TABLE,
        {"columns.features": [{"name": "a", "type": "number", "min": 2, "max": 1}]},
        "columns.features.0",
        "a: min 2.0 is above max 1.0",
    ),
    (
        "range without end",
        TABLE,
        {"columns.features": [{"name": "a", "type": "number", "max": float("inf")}]},
        "columns.features.0.max",
        "finite",
    ),
    ("min_rows", TABLE, {"quality.min_rows": 0}, "quality.min_rows", "1"),
    ("window", TABLE, {"training.window": {"partitions": 0}}, "training.window.partitions", "1"),
    ("no test", TABLE, {"training.split": {"test": 0}}, "training.split.test", "greater than 0"),
    ("all test", TABLE, {"training.split": {"test": 1}}, "training.split.test", "less than 1"),
    (
        "nothing to train on",
        TABLE,
        {"training.split": {"validation": 0.4, "test": 0.5}},
        "training.split",
        "less than a tenth",
    ),
    (
        "max_runtime",
        TABLE,
        {"training.max_runtime": "0 s"},
        "training.max_runtime",
        "greater than 0",
    ),
    (
        "stopping",
        TABLE,
        {"training.early_stopping_rounds": 0},
        "training.early_stopping_rounds",
        "1",
    ),
    *(
        (name, TABLE, {"training.hyperparameters": {name: "x"}}, "training.hyperparameters", name)
        for name in ("objective", "num_class", "eval_metric", "early_stopping_rounds")
    ),
    ("no attempts", TABLE, {"retrain.max_attempts": 0}, "retrain.max_attempts", "1"),
    ("many attempts", TABLE, {"retrain.max_attempts": 21}, "retrain.max_attempts", "20"),
    ("no bound", TABLE, {"gates.metrics": {"auc": {}}}, "gates.metrics.auc", "needs min or max"),
    (
        "another task's metric",
        TABLE,
        {"gates.metrics": {"rmse": {"max": 1}}},
        "",
        "gates name rmse, which binary does not have; it has accuracy, auc",
    ),
    ("champion", TABLE, {"gates.champion": {"metric": "r2"}}, "", "gates name r2"),
    ("margin", TABLE, {"gates.champion": {"margin": -1}}, "gates.champion.margin", "0"),
    ("coin", TABLE, {"gates.champion": {"confidence": 0.5}}, "gates.champion.confidence", "0.5"),
    ("certain", TABLE, {"gates.champion": {"confidence": 1}}, "gates.champion.confidence", "1"),
    ("strategy", TABLE, {"rollout.strategy": "hope"}, "rollout.strategy", "'all_at_once'"),
    ("capital", TABLE, {"name": "Tumours"}, "name", "'Tumours' is not a pipeline name"),
    ("digit first", TABLE, {"name": "1st"}, "name", "beginning with a letter"),
    ("long name", TABLE, {"name": "a" * 49}, "name", "at most 48"),
    ("line end", TABLE, {"name": "a\n"}, "name", "is not a pipeline name"),
    ("path", TABLE, {"name": "../a"}, "name", "is not a pipeline name"),
    ("owner", TABLE, {"owners": ["growth"]}, "owners", "neither an email address nor team:<name>"),
    ("owner's line end", TABLE, {"owners": ["team:a\n"]}, "owners", "neither an email"),
]


@pytest.mark.parametrize(
    ("base", "changes", "field", "reason"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_each_rule_has_its_refusal(base, changes, field, reason):
    """What breaks a rule is refused at its field, with the rule in words; the rest is untouched."""
    PipelineSpec.model_validate(base)
    found, message = refusal(base, changes)

    assert field == found
    assert reason in message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500 ms", 0.5),
        ("2 s", 2.0),
        ("2s", 2.0),
        (" 1.5 min ", 90.0),
        ("1 h", 3600.0),
        ("7 d", 604800.0),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text, seconds):
    """Each unit is read as what it says."""
    assert seconds == parse_duration(text)
    assert seconds == parse_duration(print_duration(seconds))


@pytest.mark.parametrize(
    "text",
    [
        2,
        2.0,
        0,
        True,
        None,
        "",
        "2",
        "2.0",
        "s",
        "-1 s",
        "2 S",
        "2 m",
        "2 sec",
        "1 h 30 min",
        "1e3 s",
        "inf s",
        "nan s",
        "2 s\nx",
        ["2 s"],
    ],
)
def test_a_duration_without_its_unit_is_refused(text):
    """A bare number, an unknown unit or anything else is refused with what to write instead."""
    field, message = refusal(TABLE, {"source.settle": text})

    assert "source.settle" == field
    assert "write a number and ms, s, min, h or d ('2 s')" in message


@given(st.floats(0, 1e9))
def test_a_printed_duration_is_read_back_exactly(seconds):
    """Writing a duration out and reading it in changes nothing, however small it is."""
    assert seconds == parse_duration(print_duration(seconds))


@pytest.mark.parametrize("base", [TABLE, IMAGES])
def test_a_pipeline_survives_being_written_out(base):
    """A pipeline written as JSON reads back as the same pipeline, set fields and defaults alike."""
    spec = PipelineSpec.model_validate(changed(base, {"source.settle": "1500 ms"}))

    assert spec == PipelineSpec.model_validate(spec.model_dump(mode="json"))
    assert spec == PipelineSpec.model_validate_json(spec.model_dump_json())
    assert spec == PipelineSpec.model_validate(spec.model_dump(mode="json", exclude_unset=True))


def test_the_schema_asks_for_a_duration_as_it_is_written():
    """An editor that checks the file against the schema accepts '2 s'."""
    schema = PipelineSpec.model_json_schema()

    assert "string" == schema["$defs"]["Source"]["properties"]["settle"]["type"]
    assert "string" == schema["$defs"]["Training"]["properties"]["max_runtime"]["type"]


def test_each_task_has_its_metrics():
    """The usual metric of a task is one of its own, and so is each that should be low."""
    assert METRICS.keys() == DEFAULT_METRIC.keys()
    assert all(DEFAULT_METRIC[task] in METRICS[task] for task in METRICS)
    assert frozenset().union(*METRICS.values()) >= LOWER_IS_BETTER


def test_hyperparameters_always_have_their_rounds():
    """A file that sets other hyperparameters still trains for the usual number of rounds."""
    spec = PipelineSpec.model_validate(changed(TABLE, {"training.hyperparameters": {"eta": 0.3}}))

    assert {"num_round": 200, "eta": 0.3} == spec.training.hyperparameters
