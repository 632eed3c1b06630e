"""`init` from Parquet, JSON lines and folders: the same table gives the same proposal."""

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from ml_control.cli.main import cli
from ml_control.core.parquet import ParquetReader
from ml_control.errors import BadObject, InvalidSpec
from ml_control.services.authoring import samples
from ml_control.services.authoring.scaffold import scaffold
from ml_control.spec import PipelineSpec


def table(rows: int = 300) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "customer_id": [f"c{row // 2}" for row in range(rows)],
            "amount": rng.gamma(2, 50, rows).round(2),
            "visits": rng.integers(0, 5, rows),
            "city": rng.choice(["Rome", "Oslo"], rows),
            "zip": rng.integers(10_000, 10_400, rows),
            "spent": [("?" if row % 9 == 0 else str(row % 40)) for row in range(rows)],
            "state": ["open"] * rows,
            "y": rng.choice(["yes", "no"], rows),
        }
    )


def attributes(folder: Path) -> dict:
    return yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]


def checked(pipelines: Path) -> None:
    """`ml-control check` takes every pipeline of the folder."""
    options = ["--home", str(pipelines.parent / "home"), "--pipelines", str(pipelines), "check"]
    done = CliRunner().invoke(cli, options)
    assert 0 == done.exit_code, done.output


def test_each_format_gives_the_same_pipeline(tmp_path: Path):
    """CSV, Parquet and JSON lines of one table differ in source.format only, and pass check."""
    frame = table()
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    (tmp_path / "unnamed").write_bytes((tmp_path / "a.jsonl").read_bytes())

    found = []
    for place, name in enumerate(["a.csv", "a.parquet", "a.jsonl", "unnamed"]):
        scaffold(tmp_path / "pipelines" / f"p{place}", tmp_path / name, "y")
        found.append(attributes(tmp_path / "pipelines" / f"p{place}"))

    formats = [one["source"].pop("format") for one in found]
    assert ["csv", "parquet", "jsonl", "jsonl"] == formats
    assert found[0] == found[1] == found[2] == found[3]
    assert ["customer_id", "state"] == found[0]["columns"]["ignore"]
    types = {one["name"]: one["type"] for one in found[0]["columns"]["features"]}
    assert {
        "amount": "number",
        "visits": "number",
        "city": "category",
        "zip": "category",
        "spent": "number",
    } == types
    checked(tmp_path / "pipelines")


def test_types_that_cannot_be_read_are_ignored_with_the_reason(tmp_path: Path):
    """Dates and nested columns are set aside, each with what to do about it."""
    frame = table().with_columns(
        day=pl.lit(date(2026, 1, 1)) + pl.duration(days=pl.int_range(pl.len()) % 9),
        parts=pl.lit([1, 2]),
    )
    frame.write_parquet(tmp_path / "a.parquet")

    scaffold(tmp_path / "p", tmp_path / "a.parquet", "y")

    text = (tmp_path / "p" / "defs.yaml").read_text()
    assert {"day", "parts"} < set(attributes(tmp_path / "p")["columns"]["ignore"])
    assert "- day  # a date or time; if it matters, send a number derived from it" in text


def test_true_and_false_are_proposed_as_they_are_read(tmp_path: Path):
    """Of Parquet they are the categories "true" and "false", which JSON lines have as texts."""
    frame = table(300).drop("spent").with_columns(flag=pl.int_range(pl.len()) % 3 == 0)
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")

    scaffold(tmp_path / "p", tmp_path / "a.parquet", "y")
    scaffold(tmp_path / "q", tmp_path / "a.parquet", "flag")
    scaffold(tmp_path / "r", tmp_path / "a.jsonl", "y")

    features = attributes(tmp_path / "p")["columns"]["features"]
    assert {"name": "flag", "type": "category"} in features
    assert "true" == attributes(tmp_path / "q")["columns"]["positive"]
    spec = PipelineSpec.model_validate({"name": "p", **attributes(tmp_path / "p")})
    read = pl.concat(ParquetReader(tmp_path / "a.parquet", "a", spec).blocks())
    assert ["true", "false", "false"] == read["flag"].head(3).to_list()
    assert "- flag  # holds true and false" in (tmp_path / "r" / "defs.yaml").read_text()


def test_numbers_written_as_texts_are_proposed_as_the_reader_takes_them(tmp_path: Path):
    """A Parquet text column of numerals is set aside with its reason; the pipeline reads on."""
    frame = table(300).drop("spent").with_columns(code=(pl.int_range(pl.len()) % 7).cast(pl.String))
    frame.write_parquet(tmp_path / "a.parquet")

    scaffold(tmp_path / "p", tmp_path / "a.parquet", "y")

    assert "- code  # holds numbers as texts" in (tmp_path / "p" / "defs.yaml").read_text()
    spec = PipelineSpec.model_validate({"name": "p", **attributes(tmp_path / "p")})
    read = pl.concat(ParquetReader(tmp_path / "a.parquet", "a", spec).blocks())
    assert 300 == read.height


def test_a_column_that_gives_the_target_away_is_ignored(tmp_path: Path):
    """What the leakage check would refuse is not proposed as a feature, and the note says why."""
    table().with_columns(answer=pl.col("y")).write_csv(tmp_path / "a.csv")

    scaffold(tmp_path / "p", tmp_path / "a.csv", "y")

    assert "answer" in attributes(tmp_path / "p")["columns"]["ignore"]
    assert "alone it tells the target" in (tmp_path / "p" / "defs.yaml").read_text()


def test_texts_among_numbers_are_marks(tmp_path: Path):
    """A word that stands among a column's numbers is proposed as a missing mark."""
    frame = table().with_columns(
        amount=pl.when(pl.int_range(pl.len()) % 7 == 0)
        .then(pl.lit("n.v."))
        .otherwise(pl.col("amount").cast(pl.String))
    )
    frame.write_csv(tmp_path / "a.csv")

    scaffold(tmp_path / "p", tmp_path / "a.csv", "y")

    assert ["", "?", "n.v."] == attributes(tmp_path / "p")["source"]["missing"]
    assert "'n.v.' stands among the numbers of amount" in (tmp_path / "p/defs.yaml").read_text()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_large_sources_are_read_in_part(tmp_path: Path, monkeypatch, suffix: str):
    """No more rows and bytes are read than the bound, and the file says so."""
    monkeypatch.setattr(samples, "MOST_ROWS", 400)
    monkeypatch.setattr(samples, "_MOST_BYTES", 20_000)
    frame = table(3_000)
    write = {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}
    write[suffix](tmp_path / f"a.{suffix}")

    found = samples.read_sample(suffix, [tmp_path / f"a.{suffix}"])
    scaffold(tmp_path / "p", tmp_path / f"a.{suffix}", "y")

    assert 0 < found.cells.height <= 400
    assert not found.whole
    assert f"read: {found.cells.height} rows of 1 file(s)" in (tmp_path / "p/defs.yaml").read_text()
    if suffix == "parquet":  # spread over the file, not its beginning
        assert "c1499" in found.cells["customer_id"].to_list()


def test_folders_of_days_of_each_format(tmp_path: Path):
    """Files below dt= folders are read together; mixed formats are refused."""
    for day in range(3):
        folder = tmp_path / "in" / f"dt={date(2026, 3, 1) + timedelta(days=day)}"
        folder.mkdir(parents=True)
        table()[day * 100 : day * 100 + 100].write_parquet(folder / "a.parquet")

    scaffold(tmp_path / "p", tmp_path / "in", "y")

    found = attributes(tmp_path / "p")
    assert ("parquet", "2026-03-01") == (
        found["source"]["format"],
        found["source"]["partition"]["start"],
    )
    (tmp_path / "in" / "b.csv").write_text("y,x\n")
    with pytest.raises(InvalidSpec, match=r"several formats \(1 csv, 3 parquet\)"):
        scaffold(tmp_path / "q", tmp_path / "in", "y")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.parquet", b"PAR1 but no more", "is not a whole Parquet file"),
        ("a.jsonl", b'{"y": 1}\n{"y": \n', "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 is not a JSON object but list"),
        ("a.jsonl", b"\n", "has no rows"),
    ],
)
def test_damaged_samples_are_refused(tmp_path: Path, name: str, data: bytes, reason: str):
    """A damaged file is named with the reason, and nothing is written."""
    (tmp_path / name).write_bytes(data)

    with pytest.raises(BadObject, match=reason):
        scaffold(tmp_path / "p", tmp_path / name, "y")

    assert not (tmp_path / "p").exists()


def test_check_refuses_what_a_sample_cannot_decide(tmp_path: Path):
    """`check` names the pipeline's suite, the expectation and the way out, and ends with 1."""
    table().write_csv(tmp_path / "a.csv")
    scaffold(tmp_path / "pipelines" / "p", tmp_path / "a.csv", "y")
    file = tmp_path / "pipelines" / "p" / "expectations.json"
    suite = json.loads(file.read_text())
    suite["expectations"].insert(
        0, {"type": "expect_column_sum_to_be_between", "kwargs": {"column": "amount"}}
    )
    file.write_text(json.dumps(suite))

    options = ["--home", str(tmp_path / "home"), "--pipelines", str(tmp_path / "pipelines")]
    done = CliRunner().invoke(cli, [*options, "check"])

    assert 1 == done.exit_code
    assert f"{file} expectations[0]" in done.stderr
    assert "cannot be decided from a sample" in done.stderr
    assert '"severity": "warning"' in done.stderr
