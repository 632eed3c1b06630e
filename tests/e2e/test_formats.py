"""Parquet and JSON lines from a sample to predictions, without editing a file."""

from __future__ import annotations

import polars as pl
import pytest

from ml_control.testing.samples import write_tumours

DAYS = ["2024-03-04", "2024-03-05"]


def write(frame: pl.DataFrame, path) -> None:
    path.parent.mkdir(parents=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_sample_becomes_a_pipeline_that_serves(suffix, tmp_path, make_shell):
    """init, check, ingest, run and predict, each on the same kind of file."""
    shell = make_shell(tmp_path)
    tables = [pl.read_csv(path) for path in write_tumours(tmp_path / "csv", DAYS)]
    files = [tmp_path / "data" / f"dt={day}" / f"cells.{suffix}" for day in DAYS]
    for table, path in zip(tables, files, strict=True):
        write(table, path)
    asked = tmp_path / "asked" / f"cells.{suffix}"
    write(tables[1].drop("diagnosis").head(3), asked)
    try:
        shell("init", shell.pipelines / "cells", "--from", files[0], "--target", "diagnosis")
        said = shell("check").stdout
        taken = shell.json("ingest", "cells", *files)
        shell("run", "cells")
        answer = shell.json("predict", "cells", "--input", asked)
        events = shell.json("events", "cells")["events"]
    finally:
        shell("down")

    assert f"ok: cells: {suffix}, binary, container 3.2-0\n" == said
    assert {"seen": 2, "recorded": 2, "refused": 0} == taken
    assert ["done", "done"] == [event["state"] for event in events]
    found = [item["label"] for item in answer["predictions"]]
    assert tables[1]["diagnosis"].head(3).to_list() == found
