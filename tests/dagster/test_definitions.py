"""What Dagster sees: names, partitions, light imports, pipelines that cannot hide each other."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.partitions import first_key, moment_of, partition_key
from ml_control.core.pipeline import Pipeline
from ml_control.resources.naming import partitions_of
from ml_control.spec import PipelineSpec

HEAVY = (
    "great_expectations", "xgboost", "sklearn", "matplotlib", "polars", "boto3", "sagemaker",
    "pandas", "cv2", "scipy",
)  # fmt: skip
ASSETS = ("raw", "processed", "model", "endpoint", "ab_config")
CADENCES = ("hour", "day", "week", "month")
FIRST, END = datetime(2024, 5, 15, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
moments = st.integers(int(FIRST.timestamp()), int(END.timestamp())).map(
    lambda second: datetime.fromtimestamp(second, UTC)
)


def pipeline(by, start="2024-05-15"):
    """A pipeline of this cadence; its start lies within a week and a month."""
    attributes = {
        "name": "p",
        "source": {"format": "images", "partition": {"by": by, "start": start}},
        "columns": {"task": "multiclass"},
    }
    return Pipeline(spec=PipelineSpec.model_validate(attributes))


@pytest.fixture
def definitions(home):
    """The definitions of both examples."""
    home.add_pipeline("digits")
    return home.definitions()


def test_loading_imports_nothing_heavy(home):
    """A run starts without the libraries that only its steps need."""
    home.add_pipeline("digits")
    program = (
        "import sys, json, ml_control.definitions as d;"
        "keys = [k.to_user_string() for k in d.defs.resolve_all_asset_keys()];"
        f"print(json.dumps([sorted(keys), [m for m in {HEAVY!r} if m in sys.modules]]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    keys, heavy = json.loads(done.stdout)
    assert sorted(f"{name}/{asset}" for name in ("digits", "tumours") for asset in ASSETS) == keys
    assert [] == heavy


def test_every_asset_is_named_grouped_and_owned(definitions):
    """Keys, groups, owners and kinds are what people look for in the catalogue."""
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    kinds = {
        "raw": {"csv"},
        "processed": {"parquet", "polars"},
        "model": {"xgboost"},
        "endpoint": {"sagemaker", "http"},
        "ab_config": {"router"},
    }

    for asset in ASSETS:
        spec = specs[f"tumours/{asset}"]
        assert "tumours" == spec.group_name
        assert ["team:research"] == list(spec.owners)
        assert kinds[asset] == set(spec.kinds)
        assert spec.description
    assert {"images"} == set(specs["digits/raw"].kinds)


def test_assets_depend_on_each_other_in_the_order_of_the_flow(definitions):
    """raw -> processed -> model -> endpoint -> ab_config."""
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}

    for before, after in itertools.pairwise(ASSETS):
        upstream = {dep.asset_key for dep in specs[dg.AssetKey(["digits", after])].deps}
        assert {dg.AssetKey(["digits", before])} == upstream


def test_data_checks_are_partitioned_and_gates_block(definitions):
    """A bad partition's check says nothing of another; a failed gate stops what follows."""
    specs = definitions.resolve_asset_graph().asset_check_keys
    by_asset = {}
    for key in specs:
        spec = definitions.resolve_asset_graph().get_check_spec(key)
        by_asset.setdefault(key.asset_key.to_user_string(), []).append(spec)

    data = [*by_asset["tumours/raw"], *by_asset["tumours/processed"]]
    assert all(spec.partitions_def is not None for spec in data)
    assert all(spec.blocking for spec in by_asset["tumours/model"])
    gates = {spec.name for spec in by_asset["tumours/model"]}
    assert {"data_checks", "archive", "golden", "champion", "metric_auc"} <= gates


def test_jobs_and_sensors_have_their_names_and_sensors_run(definitions):
    """Three jobs and three sensors for each pipeline; nobody has to switch a sensor on."""
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    sensors = {sensor.name: sensor for sensor in definitions.sensors}

    for name in ("digits", "tumours"):
        assert {f"{name}__ingest", f"{name}__train", f"{name}__rollout"} <= jobs
        for sensor in (f"{name}__arrivals", f"{name}__retraining", f"{name}__rollout"):
            assert dg.DefaultSensorStatus.RUNNING == sensors[sensor].default_status
    assert "tumours__ingest" == sensors["tumours__arrivals"].job_name
    assert "tumours__train" == sensors["tumours__retraining"].job_name


def test_a_broken_pipeline_is_named_and_hides_no_other(home, caplog):
    """The others load; the log names the broken one, with file, line and field."""
    file = home.add_pipeline("tumours", as_name="broken")
    home.edit("min_rows: 20", "min_rows: 0", pipeline="broken")
    line = file.read_text("utf-8").splitlines().index("    min_rows: 0") + 1

    keys = home.definitions().resolve_all_asset_keys()

    assert {"tumours"} == {key.path[0] for key in keys}
    (record,) = [r for r in caplog.records if r.name == "ml_control"]
    assert "pipeline broken is left out" in record.getMessage()
    assert f"{file}:{line}" in record.getMessage()
    assert "min_rows" in record.getMessage()


def test_a_pipeline_broken_only_as_a_whole_is_left_out_too(home, caplog):
    """What no field alone shows, such as a missing suite, hides no other either."""
    home.add_pipeline("digits")
    (home.pipelines / "digits" / "expectations.json").unlink()

    keys = home.definitions().resolve_all_asset_keys()

    assert {"tumours"} == {key.path[0] for key in keys}
    assert "pipeline digits is left out" in caplog.text
    assert "expectations.json" in caplog.text


def test_a_stray_module_beside_a_pipeline_is_not_run(home):
    """A pipeline folder is data: Python in it is never imported."""
    (home.pipelines / "tumours" / "stray.py").write_text("raise SystemExit('ran')\n")
    (home.pipelines / "tumours" / "__init__.py").write_text("raise SystemExit('ran')\n")

    assert 5 == len(home.definitions().resolve_all_asset_keys())


def test_no_pipelines_are_no_error(home, monkeypatch):
    """An empty installation loads, so that Dagster comes up before the first pipeline."""
    monkeypatch.setenv("ML_CONTROL_PIPELINES", str(home.root / "none"))

    assert 0 == len(home.definitions().resolve_all_asset_keys())


def test_dagster_validates_the_definitions(home):
    """``dagster definitions validate`` accepts what the module offers."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dagster")),
            *("definitions", "validate", "-m", "ml_control.definitions"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        cwd=home.root,
    )

    assert (0, True) == (done.returncode, "successful" in done.stdout + done.stderr)


@pytest.mark.parametrize("by", CADENCES)
def test_the_partition_of_this_moment_is_the_last_one(by):
    """Data can be ingested on its own day, not only on the day after."""
    now = datetime(2026, 3, 31, 23, 59, tzinfo=UTC)

    with freeze_time(now):
        last = partitions_of(pipeline(by)).get_last_partition_key()

    assert partition_key(now, by) == last


@pytest.mark.parametrize("by", CADENCES)
def test_the_first_partition_holds_the_start(by):
    """An object of the very first day has a partition that Dagster knows."""
    found = pipeline(by)
    partitioning = found.spec.source.partition
    start = datetime(2024, 5, 15, tzinfo=UTC)

    assert first_key(partitioning) == partitions_of(found).get_first_partition_key()
    assert partition_key(start, by) == first_key(partitioning)
    assert date(2024, 5, 15) == partitioning.start


@pytest.mark.parametrize("by", CADENCES)
@given(moment=moments)
def test_our_keys_are_dagsters_own(by, moment):
    """For every moment, the ledger's partition is the one whose window Dagster says it is in."""
    definition = partitions_of(pipeline(by))

    ours = partition_key(moment, by)

    with freeze_time(datetime(2031, 1, 2, tzinfo=UTC)):
        assert definition.get_partition_key_for_timestamp(moment.timestamp()) == ours
        window = definition.time_window_for_partition_key(ours)
        assert definition.has_partition_key(ours)
    assert window.start <= moment < window.end


@pytest.mark.parametrize("by", CADENCES)
@given(moment=moments)
def test_a_partition_key_is_a_usable_folder_name(by, moment):
    """Files under ``dt=<partition key>`` come to exactly that partition."""
    ours = partition_key(moment, by)

    assert ours == partition_key(moment_of(f"p/dt={ours}/x.csv", 0.0), by)
