"""From the log to the lake: every row once, histograms beside it, whoever flushes and when."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from flushed import NOON, Clock, P, ids, pipeline, request

from ml_control.core.pipeline import Pipeline
from ml_control.errors import MlControlError, PlatformFailed, Unknown
from ml_control.local.prediction_log import SqlitePredictionLog
from ml_control.platform import open_platform
from ml_control.ports import Outcome
from ml_control.registry.live import HOURS, LiveState, Plan
from ml_control.services.traffic import flush as flushing
from ml_control.services.traffic.flush import flush
from ml_control.services.traffic.log_files import read_outcomes, read_predictions
from ml_control.settings import load_settings
from ml_control.spec import PipelineSpec


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def platform(tmp_path, clock, log_place):
    """A platform of its own with each platform's log, whose clock is told the time."""
    opened = open_platform(load_settings(home=tmp_path, pipelines=tmp_path / "pipelines"))
    opened.registry.clock = clock
    opened.log.close()
    return replace(opened, log=log_place.client())


def test_a_request_is_a_row_for_each_record_with_typed_columns(platform):
    """What does not fit the declared columns is kept as it came, and nothing is lost of a failure
    or of a request that was not captured.
    """
    records = [
        {"size": 2, "colour": "red"},
        {"size": "?", "colour": 7, "note": "n"},
        {"size": [1], "colour": None},
    ]
    platform.log.append(
        [
            request("r1", records=records),
            replace(request("none"), records=None),
            request("failed", served="", failed=True, failure="timed out", answers=b"[]"),
        ]
    )
    flush(platform, [pipeline()], force=True)
    table = read_predictions(platform, P).sort("offset", "index").collect()

    assert ["r1"] * 3 + ["none", "failed"] == table["request_id"].to_list()
    assert [0, 1, 2, 0, 0] == table["index"].to_list()
    assert [2.0, None, None, None, 1.5] == table["record.size"].to_list()
    assert ["red", "7", None, None, "red"] == table["record.colour"].to_list()
    assert [None, records[1], records[2], None, None] == [
        text if text is None else json.loads(text) for text in table["record_json"]
    ]
    assert [0.75] * 4 + [None] == table["score"].to_list()
    assert ["", "timed out"] == table["failure"].to_list()[-2:]
    assert datetime(2036, 11, 22, 12, tzinfo=UTC) == table["at"][0]


def test_files_are_by_hour_and_read_back_by_time(platform):
    """A reader opens the hours it asks for, and gets no row outside of its time."""
    times = [NOON - 3600, NOON - 1, NOON, NOON + 1800, NOON + 86400]
    platform.log.append([request(f"r{i}", at) for i, at in enumerate(times)])
    done = flush(platform, [pipeline()], force=True)
    keys = list(platform.lake.list(f"logs/{P}/predictions"))

    assert (5, 3, {}) == (done.predictions, done.files, done.errors)
    assert [f"logs/{P}/predictions/dt=2036-11-{where}" for where in
            ("22/hour=11", "22/hour=12", "23/hour=12")] == [
        key.rpartition("/")[0] for key in keys
    ]  # fmt: skip
    assert ["r1", "r2"] == ids(platform, NOON - 1, NOON + 1800)
    assert ["r3", "r4"] == ids(platform, NOON + 1)
    assert ["r0", "r1", "r2", "r3", "r4"] == ids(platform)
    assert [] == ids(platform, NOON + 90000)
    assert 0 == read_outcomes(platform, P).collect().height


def test_outcomes_are_flushed_beside_their_predictions(platform):
    """What really happened, of any kind, with what was predicted, as the log joined it."""
    platform.log.append([request("r1"), request("r2", rows=1)])
    platform.log.tell(P, "r1", [Outcome(0, {"revenue": 1.5}, NOON + 7200)])
    platform.log.tell(P, "r2", [Outcome(0, "lily", NOON + 7300)])
    done = flush(platform, [pipeline()], force=True)
    table = read_outcomes(platform, P, NOON + 7200, NOON + 7300).collect()

    assert (2, 2) == (done.outcomes, done.files)
    assert [('{"revenue":1.5}', "rose", 0.75, True)] == table.select(
        "outcome", "label", "score", "first"
    ).rows()
    assert 2 == read_outcomes(platform, P).collect().height


def test_only_what_is_due_is_flushed(platform, clock, log_place, monkeypatch):
    """Five minutes, a whole hour, or many at once; without anything new nothing is read."""
    if not isinstance(platform.log, SqlitePredictionLog):
        monkeypatch.setattr(flushing, "MANY", 500)
    clock.now = NOON + 10
    platform.log.append([request("r1")])

    assert 0 == flush(platform, [pipeline()]).files
    clock.now = NOON + 301
    assert 1 == flush(platform, [pipeline()]).predictions
    platform.log.append([request("r2", NOON + 310)])
    clock.now = NOON + 400
    assert 0 == flush(platform, [pipeline()]).files
    clock.now = NOON + 3600
    assert 1 == flush(platform, [pipeline()]).predictions
    assert 0 == flush(platform, [pipeline()], force=True).files
    platform.log.append(
        [request(f"m{i}", clock.now, model_version="m2") for i in range(flushing.MANY)]
    )
    assert flushing.MANY == flush(platform, [pipeline()]).predictions
    assert flushing.MANY + 2 == len(set(ids(platform)))


def test_repeated_requests_leave_nothing_to_flush(platform):
    """Offsets that duplicates took are passed over, once."""
    platform.log.append([request("r1")])
    flush(platform, [pipeline()], force=True)
    platform.log.append([request("r1"), request("r2"), request("r2")])

    assert 1 == flush(platform, [pipeline()], force=True).predictions
    before = platform.registry.live.state(P)
    assert 0 == flush(platform, [pipeline()], force=True).predictions
    assert before == platform.registry.live.state(P)


def test_two_flushes_at_once_write_and_count_once(platform, monkeypatch):
    """One of them finds at the end that the other was faster, and that is no error."""
    platform.log.append([request(f"r{i}") for i in range(5)])
    write = flushing._write

    def slower(*arguments):
        monkeypatch.setattr(flushing, "_write", write)
        assert 5 == flush(platform, [pipeline()], force=True).predictions
        return write(*arguments)

    monkeypatch.setattr(flushing, "_write", slower)
    done = flush(platform, [pipeline()], force=True)

    assert (0, {}) == (done.predictions, done.errors)
    assert 5 == len(ids(platform))
    assert 5 == platform.registry.live.merged(P, "m1", NOON, NOON)["rows"]


def test_one_pipelines_trouble_does_not_keep_others_waiting(platform, monkeypatch):
    """It is told by name, and its rows come with the next flush."""
    other = Pipeline(pipeline().spec.model_copy(update={"name": "birds"}))
    platform.log.append([request("r1"), request("r1", pipeline="birds")])
    create = platform.lake.create

    def refuses(key, data):
        if P in key:
            raise PlatformFailed(key, "could not be written: no space", "free space")
        create(key, data)

    monkeypatch.setattr(platform.lake, "create", refuses)
    done = flush(platform, [pipeline(), other], force=True)

    assert (1, [P], "PlatformFailed") == (done.predictions, [*done.errors], done.errors[P].kind)
    monkeypatch.undo()
    assert 1 == flush(platform, [pipeline(), other], force=True).predictions


def test_an_older_copy_of_the_log_is_refused(platform):
    """Its new requests would be taken for flushed ones and never reach the lake."""
    platform.log.append([request("r1")])
    flush(platform, [pipeline()], force=True)
    state, version = platform.registry.live.state(P)
    platform.registry.live.put(
        state.model_copy(update={"predictions": state.predictions + 100}), version
    )
    error = flush(platform, [pipeline()], force=True).errors[P]

    assert isinstance(error, Unknown)
    assert "older copy" in error.reason


def test_offsets_that_were_flushed_twice_are_read_once(platform):
    """After the registry went back in time the files overlap."""
    platform.log.append([request(f"r{i}") for i in range(3)])
    flush(platform, [pipeline()], force=True)
    _, version = platform.registry.live.state(P)
    platform.registry.live.put(LiveState(pipeline=P), version)
    platform.log.append([request("r3")])
    flush(platform, [pipeline()], force=True)

    assert 2 == len(list(platform.lake.list(f"logs/{P}/predictions")))
    assert [f"r{i}" for i in range(4)] == ids(platform)


def test_a_plan_of_a_lost_log_is_passed_over(platform):
    """The rows it was about are gone; what is new is flushed."""
    platform.registry.live.put(LiveState(pipeline=P, plan=Plan(predictions=50, outcomes=7)), 0)
    platform.log.append([request("r1")])
    done = flush(platform, [pipeline()], force=True)

    assert (1, {}) == (done.predictions, done.errors)


def test_columns_may_change_between_flushes(platform):
    """A reader gets the columns of all, empty where they were not declared yet."""
    platform.log.append([request("r1")])
    flush(platform, [pipeline()], force=True)
    platform.log.append([request("r2", records=({"size": 1, "price": 2},))])
    features = [{"name": "size", "type": "category"}, {"name": "price", "type": "number"}]
    flush(platform, [pipeline(features=features)], force=True)
    table = read_predictions(platform, P).sort("offset").collect()

    assert [None, 2.0] == table["record.price"].to_list()
    assert ["1.5", "1"] == table["record.size"].to_list()


def test_live_profiles_are_kept_by_model_and_hour(platform):
    """Merged over the hours asked for; a place is taken again after a month."""
    live, much = platform.registry.live, NOON + 3600 * HOURS
    for id, at, version in (("r1", NOON, "m1"), ("r2", NOON, "m1"), ("r3", NOON + 3600, "m1"),
                            ("r4", NOON, "m2"), ("r5", NOON, "")):  # fmt: skip
        served = "a" if version else ""
        platform.log.append([request(id, at, model_version=version, served=served)])
        flush(platform, [pipeline()], force=True)

    assert 3 == live.merged(P, "m1", 0.0, NOON + 3600)["rows"]
    assert [2, 1] == [
        live.merged(P, "m1", *span)["rows"]
        for span in ((NOON, NOON + 3599), (NOON + 3600, NOON + 3601))
    ]
    assert 1 == live.merged(P, "m2", NOON, NOON)["rows"]
    assert live.merged(P, "m3", 0.0, NOON) is None
    platform.log.append([request("r6", much)])
    flush(platform, [pipeline()], force=True)
    assert 1 == live.merged(P, "m1", much, much)["rows"]
    assert live.merged(P, "m1", NOON, NOON) is None


def test_a_time_that_no_calendar_has_stops_nothing(platform):
    """A request with an absurd time is flushed too, at the end of the calendar."""
    platform.log.append([request("r1", 1e17), request("r2", -5.0)])
    done = flush(platform, [pipeline()], force=True)

    assert (2, {}) == (done.predictions, done.errors)
    assert 2 == len(ids(platform))


def test_live_profiles_are_on_the_bins_of_the_models_own_profile(trained):
    """Counts add up to the rows, on the very edges of the training data; answers of the test rows
    were kept as what predictions are compared with.
    """
    from ml_control.services.traffic.live import reference_of

    opened, tumours = trained.platform, trained.pipeline()
    model = opened.registry.models.candidate("tumours")
    reference = reference_of(opened, "tumours", model.version)
    names = [one.name for one in tumours.spec.columns.features]
    mean = {name: reference["features"][name]["mean"] for name in names}
    records = [mean, dict.fromkeys(names, 1e30), {**mean, names[0]: None}]
    opened.log.append(
        [request("r1", records=records, pipeline="tumours", model_version=model.version)]
    )
    done = flush(opened, [tumours], force=True)
    live = opened.registry.live.merged("tumours", model.version, NOON, NOON)

    assert {} == done.errors
    assert 3 == live["rows"]
    for name in names:
        own, known = live["features"][name], reference["features"][name]
        assert known["bins"]["edges"] == own["bins"]["edges"]
        assert 3 == sum(own["bins"]["counts"]) + own["missing"] + own["outside"]
    assert 1 == live["features"][names[0]]["missing"]
    score, test = live["prediction"]["score"], reference["prediction"]["score"]
    assert test["bins"]["edges"] == score["bins"]["edges"]
    assert test["count"] == sum(reference["prediction"]["label"]["levels"].values()) > 50
    assert {"rose": 3} == live["prediction"]["label"]["levels"]
    with suppress(MlControlError):
        assert reference_of(opened, "tumours", "unknown") is None


def test_images_are_profiled_by_brightness_and_contrast(platform):
    """As their training data is; a record that is no image counts as missing."""
    spec = {
        "name": P,
        "source": {
            "format": "images",
            "partition": {"by": "day", "start": "2026-01-01"},
            "image": {"height": 2, "width": 2},
        },
        "columns": {"target": "label", "task": "multiclass"},
    }
    images = Pipeline(PipelineSpec.model_validate(spec))
    records = [{"pixels": [0, 0, 200, 200]}, {"pixels": [[4, 4], [4, 4]]}, {"image": "?"}]
    platform.log.append([request("r1", records=records)])
    flush(platform, [images], force=True)
    found = platform.registry.live.merged(P, "m1", NOON, NOON)["features"]
    table = read_predictions(platform, P).sort("index").collect()

    assert (4.0, 100.0, 1) == tuple(found["brightness"][k] for k in ("min", "max", "missing"))
    assert np.isclose(100.0, found["contrast"]["max"])
    assert records == [json.loads(text) for text in table["record_json"]]
    assert table.schema["at"] == pl.Datetime("us", "UTC")
