"""A file replaced by somebody with access to the disk, between its validation and its use."""

from __future__ import annotations

import shutil

import pytest
from drilling import ALL, DATA, DAYS, NAME

DAY = DAYS[0]


def swapped(path, data):
    """Put other bytes in a file's place, as an editor does; gives the ones before."""
    before = path.read_bytes()
    assert before != data
    draft = path.with_name(f"{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)
    return before


@pytest.mark.parametrize(
    ("pattern", "work", "kind"),
    [
        ("raw/*/dt=*/*.csv", [["ingest", DAY]], "BadObject"),
        ("raw/*/_manifests/*/*.json", [["ingest", DAY]], "BadObject"),
        ("processed/*/dt=*/parts/part-*.parquet", [["train"]], "BadObject"),
        ("processed/*/dt=*/*/manifest.json", [["train"]], "BadObject"),
    ],
)
@pytest.mark.parametrize("how", ["other rows", "cut"])
def test_published_data_replaced_before_training_is_refused(
    published, tables, pattern, work, kind, how
):
    """Well-formed other content or a cut file: refused by name; with the bytes back, it trains."""
    home = published
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.do([["take_in"]])
    before = home.state()
    path = max((home.folder / "lake").glob(pattern), key=lambda path: path.name)
    data = path.read_bytes()
    other = data[: len(data) // 2] if how == "cut" else doctored(home, path, tables)
    kept = swapped(path, other)

    error = home.refused(work)

    assert (kind, True) == (error["kind"], str(error["object"]) != ""), error
    assert path.name in error["object"] or f"{NAME}/dt={DAY}/" in error["object"], error
    assert before == home.state()
    assert other == path.read_bytes()
    swapped(path, kept)
    home.do([*DATA, ["train"]])
    home.check_ledger()


def doctored(home, path, tables):
    """Content of the same form that says something else."""
    if path.suffix == ".csv":
        return b"".join(tables[DAY].splitlines(keepends=True)[:-7])
    if path.suffix == ".parquet":
        import io

        import polars as pl

        frame = pl.read_parquet(path)
        swap = {"benign": "malignant", "malignant": "benign"}
        buffer = io.BytesIO()
        frame.with_columns(pl.col("diagnosis").replace(swap)).write_parquet(buffer)
        return buffer.getvalue()
    if "_manifests" in str(path):
        return path.read_bytes().replace(b'"version":"', b'"version":"0')
    return path.read_bytes().replace(b'"max":', b'"max":1')


@pytest.mark.parametrize("name", ["train-00000.csv", "validation-00000.csv", "test_features.csv"])
def test_channel_files_replaced_before_training_never_reach_a_model(
    published, served_template, name
):
    """Derived files that were changed are refused by name; made anew, the model is the same."""
    home = published
    home.stopped([["train"]], "trainer.train", "before").kill()
    (path,) = (home.folder / "lake" / "artifacts" / NAME / "channels").glob(f"*/{name}")
    lines = path.read_bytes().splitlines(keepends=True)
    swapped(path, b"".join(lines[: len(lines) // 2]))

    home.released()
    answer = home.start(ALL[2:]).answer()

    assert "BadObject" == answer["error"]["kind"], answer
    assert str(path) == answer["error"]["object"]
    assert home.registry.models.candidate(NAME) is None
    shutil.rmtree(path.parent)
    home.do(ALL[2:])
    assert served_template.first == home.registry.rollouts.get(NAME).champion
    home.check_serving()


@pytest.mark.parametrize("name", ["model.tar.gz", "features.json", "golden.json"])
def test_a_models_file_replaced_after_its_verdict_is_not_deployed(served, name):
    """Another proven model's file in its place is refused; the old model serves on, untouched."""
    home = served
    before = home.state()
    candidate = home.registry.models.candidate(NAME)
    first = home.registry.models.get(NAME, before["rollout"]["champion"])
    lake = home.folder / "lake"
    kept = swapped(
        lake / candidate.prefix / name, (lake / first.prefix / name).read_bytes() + b"\n"
    )

    for work in ([["deploy"]], [["route"]]):
        error = home.refused(work)

        assert "NotProven" == error["kind"], error
        assert candidate.version[:12] in error["object"]
    assert before == home.state()
    home.check_serving()
    swapped(lake / candidate.prefix / name, kept)
    if name == "golden.json":
        home.do([["deploy"], ["route"]])
        home.check_serving()


def test_an_archive_replaced_in_the_endpoints_folder_does_not_come_back(served):
    """The server dies and its stored archive was replaced: what comes back is the proven one."""
    home = served
    (stored,) = (home.folder / "endpoints").glob("*/*/model.tar.gz")
    candidate = home.registry.models.candidate(NAME)
    other = (home.folder / "lake" / candidate.prefix / "model.tar.gz").read_bytes()
    swapped(stored, other)
    (server,) = home.servers()
    server.kill()
    server.wait(20)

    home.do([["serve"]])

    home.check_serving()
