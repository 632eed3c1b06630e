"""`init`: what a sample says, and a pipeline folder that works as it is."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.images import encode_png
from ml_control.core.infer import Inference, infer, infer_images
from ml_control.core.tabular import read_csv
from ml_control.errors import BadObject, InvalidSpec
from ml_control.services.authoring.scaffold import render, scaffold
from ml_control.spec import PipelineSpec
from ml_control.testing.samples import write_digits, write_tumours

START = date(2026, 1, 1)
ROWS = range(40)
CUSTOMERS = "\n".join(
    [
        "customerId,age,temperature,lat,city,joined,plan,note,empty,income,churn",
        *(
            f"{1000 + i},{20 + i % 50},{15 + i % 9},{45 + i / 100},{'Rome' if i % 3 else '?'},"
            f"2026-01-{1 + i % 28:02d},{'NA' if i == 5 else i % 3},text {i},,{i * 10.5},"
            f"{'yes' if i % 4 == 0 else 'no'}"
            for i in ROWS
        ),
    ]
).encode()


def columns(data: bytes = CUSTOMERS, target: str = "churn") -> dict:
    return infer(data, target, start=START).attributes["columns"]


def test_a_sample_gives_types_ranges_marks_and_task():
    """Columns, ranges, missing marks, task, positive class and ignored columns are inferred."""
    found = infer(CUSTOMERS, "churn", start=START)

    assert ["", "NA", "?"] == found.attributes["source"]["missing"]
    assert {
        "target": "churn",
        "task": "binary",
        "positive": "yes",
        "features": [
            {"name": "age", "type": "number", "min": 0.0, "max": 120.0},
            {"name": "temperature", "type": "number"},
            {"name": "lat", "type": "number", "min": -90.0, "max": 90.0},
            {"name": "city", "type": "category"},
            {"name": "plan", "type": "number", "min": 0.0},
            {"name": "income", "type": "number", "min": 0.0},
        ],
        "ignore": ["customerId", "joined", "note", "empty"],
    } == found.attributes["columns"]
    assert "identifier" in found.notes["columns.ignore.customerId"]
    assert "date" in found.notes["columns.ignore.joined"]
    assert "different text in every row" in found.notes["columns.ignore.note"]
    assert "no value" in found.notes["columns.ignore.empty"]


def targets(*values: str) -> bytes:
    return "\n".join(["x,t", *(f"{i % 5},{value}" for i, value in enumerate(values))]).encode()


@pytest.mark.parametrize(
    ("values", "task", "positive"),
    [
        (["0", "1", "1"], "binary", "1"),
        (["<=50K", ">50K", ">50K"], "binary", ">50K"),
        (["common", "common", "rare"], "binary", "rare"),
        (["TRUE", "TRUE", "FALSE"], "binary", "TRUE"),
        (["a", "b", "c"], "multiclass", None),
        ([str(i % 4) for i in ROWS], "multiclass", None),
        ([str(i * 3) for i in ROWS], "regression", None),
        (["0.5", "1.5", "2.5"], "regression", None),
    ],
)
def test_the_target_decides_the_task(values: list[str], task: str, positive: str | None):
    """Two values are binary, few classes multiclass, many or fractional numbers regression."""
    found = columns(targets(*values), "t")

    assert (task, positive) == (found["task"], found.get("positive"))


@pytest.mark.parametrize(
    ("data", "target", "kind", "reason"),
    [
        (CUSTOMERS, "Churn", InvalidSpec, "is no column of the sample"),
        (CUSTOMERS, "", InvalidSpec, "is needed for a sample of tables"),
        (targets("a", "a"), "t", InvalidSpec, "one value in the sample: 'a'"),
        (targets(*(f"v{i}" for i in range(60))), "t", InvalidSpec, "too many classes"),
        (targets("a", "", "b"), "t", BadObject, "row 2 has no 't'"),
        (b"id,t\n1,a\n2,b\n", "t", InvalidSpec, "no column can be a feature: id"),
        (b"", "t", BadObject, "is empty"),
    ],
)
def test_an_unusable_sample_is_refused(data: bytes, target: str, kind: type, reason: str):
    """A sample or target that gives no pipeline is refused with the reason."""
    with pytest.raises(kind, match=re.escape(reason)):
        infer(data, target, start=START)


def test_a_missing_target_lists_the_columns():
    """Whoever mistypes the target sees the columns to choose from."""
    with pytest.raises(InvalidSpec) as refused:
        infer(b"x,y\n1,2\n", "z", start=START)

    assert "choose --target from: x, y" == refused.value.next


def test_images_give_shape_mode_and_task():
    """One small size is kept, grey is seen, and two labels are binary."""
    rng = np.random.default_rng(0)
    grey = [encode_png(rng.integers(0, 256, (10, 6), dtype=np.uint8)) for _ in range(3)]
    colour = [encode_png(rng.integers(0, 256, (90, 80, 3), dtype=np.uint8))]

    small = infer_images({"bad": grey[:1], "good": grey[1:]}, start=START).attributes
    mixed = infer_images({"a": grey, "b": colour, "c": grey}, start=START).attributes

    assert {"height": 10, "width": 6, "mode": "grey"} == small["source"]["image"]
    assert {"target": "label", "task": "binary", "positive": "bad"} == small["columns"]
    assert {"height": 32, "width": 32, "mode": "colour"} == mixed["source"]["image"]
    assert "multiclass" == mixed["columns"]["task"]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4, unique=True), TEXT, st.floats(-1e9, 1e9))
def test_the_written_yaml_is_the_inference(names: list[str], note: str, number: float):
    """Whatever the names and notes, reading the file gives exactly the inferred attributes."""
    attributes = {
        "columns": {
            "target": names[0],
            "features": [{"name": name, "type": "number", "min": number} for name in names],
            "ignore": names,
        },
        "source": {"missing": ["", *names]},
    }
    notes = {"source": note, "source.missing": note, f"columns.features.{names[0]}": note}

    text = render(Inference(attributes, notes), "sample.csv")

    assert {"type": "ml_control.components.ModelPipeline", "attributes": attributes} == (
        yaml.safe_load(text)
    )


def load(folder: Path) -> tuple[PipelineSpec, dict]:
    written = yaml.safe_load((folder / "defs.yaml").read_text())
    suite = json.loads((folder / "expectations.json").read_text())
    return PipelineSpec.model_validate({"name": folder.name, **written["attributes"]}), suite


def test_a_csv_gives_a_pipeline_that_reads_it(tmp_path: Path):
    """The written folder is a valid pipeline that admits its own sample."""
    sample = tmp_path / "customers.csv"
    sample.write_bytes(CUSTOMERS)

    paths = scaffold(tmp_path / "churn", sample, "churn")
    spec, suite = load(tmp_path / "churn")

    assert ["defs.yaml", "expectations.json"] == [path.name for path in paths]
    assert ("churn", 40) == (suite["name"], read_csv(CUSTOMERS, spec, "x").height)
    assert datetime.now(UTC).date() - timedelta(days=365) == spec.source.partition.start
    assert "# looks like an identifier" in paths[0].read_text()


def test_folders_of_days_give_start_and_rows(tmp_path: Path):
    """The earliest day is the start, and min_rows suits one day's rows."""
    write_digits(tmp_path / "in", ["2026-03-02", "2026-03-01"], 60)
    write_tumours(tmp_path / "csv", ["2026-04-01", "2026-04-02"])

    scaffold(tmp_path / "digits", tmp_path / "in", None)
    scaffold(tmp_path / "tumours", tmp_path / "csv", "diagnosis")
    digits, tumours = load(tmp_path / "digits")[0], load(tmp_path / "tumours")[0]

    assert (date(2026, 3, 1), 6) == (digits.source.partition.start, digits.quality.min_rows)
    assert (8, 8, "grey") == tuple(digits.source.image.model_dump().values())
    assert (date(2026, 4, 1), 28) == (tumours.source.partition.start, tumours.quality.min_rows)
    assert ("binary", "malignant") == (tumours.columns.task, tumours.columns.positive)


def test_the_suggested_suite_holds_on_its_sample(tmp_path: Path):
    """Great Expectations takes the suite as it is, and the sample passes; other units do not."""
    import great_expectations as gx
    import pandas as pd

    sample = tmp_path / "customers.csv"
    sample.write_bytes(CUSTOMERS)
    scaffold(tmp_path / "churn", sample, "churn")
    spec, suite = load(tmp_path / "churn")
    frame = pd.DataFrame(read_csv(CUSTOMERS, spec, "x").to_dict(as_series=False))
    context = gx.get_context(mode="ephemeral")
    batch = context.data_sources.add_pandas("p").add_dataframe_asset("a")
    whole = batch.add_batch_definition_whole_dataframe("b")

    def failed(table) -> set[str]:
        checked = whole.get_batch(batch_parameters={"dataframe": table}).validate(
            gx.ExpectationSuite(**suite)
        )
        return {r.expectation_config.kwargs["column"] for r in checked.results if not r.success}

    assert set() == failed(frame)
    assert {"income"} == failed(frame.assign(income=frame["income"] * 1000))


def test_refusals_write_nothing(tmp_path: Path):
    """A bad name, a folder in use, an absent or unusable source: refused, nothing written."""
    sample = tmp_path / "customers.csv"
    sample.write_bytes(CUSTOMERS)
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a.png").write_bytes(encode_png(np.zeros((4, 4), dtype=np.uint8)))
    empty = tmp_path / "empty"
    empty.mkdir()
    before = sorted(tmp_path.rglob("*"))

    for folder, source, target, reason in [
        (tmp_path / "My-Model", sample, "churn", "is not a pipeline name"),
        (used, sample, "churn", "is not an empty folder"),
        (tmp_path / "ok", tmp_path / "nowhere.csv", "churn", "does not exist"),
        (tmp_path / "ok", sample, "chrun", "is no column of the sample"),
        (tmp_path / "ok", sample, None, "is needed for a sample of tables"),
        (tmp_path / "ok", flat, None, "lies in no label folder"),
        (
            tmp_path / "ok",
            empty,
            None,
            "neither CSV, Parquet or JSON-lines files nor PNG or JPEG images",
        ),
    ]:
        with pytest.raises(InvalidSpec, match=re.escape(reason)):
            scaffold(folder, source, target)

    assert before == sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("name", ["digits", "tumours"])
def test_the_example_pipelines_are_valid(name: str):
    """The examples that come with the project are pipelines as they are written."""
    spec, suite = load(Path(__file__).parents[2] / "pipelines" / name)

    assert (name, "expectations.json") == (suite["name"], spec.quality.expectations)


def test_sample_images_are_disjoint(tmp_path: Path):
    """No two days and no held-back picture share an image, and a seed gives the same files."""
    days = ["2026-01-01", "2026-01-02"]
    held = write_digits(tmp_path / "one", days, 30, seed=4, held_back=10)
    again = write_digits(tmp_path / "two", days, 30, seed=4, held_back=10)
    files = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in tmp_path.glob("one/*/*/*")}

    assert (60, 10) == (len(files), len(held))
    assert 70 == len({*files.values(), *(data for _, data in held)})
    assert held == again
    assert all((tmp_path / "two" / path).read_bytes() == data for path, data in files.items())
    with pytest.raises(InvalidSpec, match="there are 1797"):
        write_digits(tmp_path / "three", days, 1000)
