"""Bad files that land beside good ones: set aside with their reason, and nothing else moves."""

from __future__ import annotations

import json

import pytest
from bad_files import AUDITED, GOOD, HEAD, SPEC, TABLES

from ml_control.core.pipeline import Pipeline
from ml_control.errors import BadObject
from ml_control.platform import open_platform
from ml_control.services.arrivals.intake import ingest_files, take_in
from ml_control.services.data.dataset import admit, process
from ml_control.settings import load_settings

DAY = "2026-03-04"
ROWS = HEAD + b"".join(b"%d,Rome,%s\n" % (20 + i, b"yes" if i % 2 else b"no") for i in range(8))


def pipeline(on_bad_object="quarantine"):
    source = SPEC.source.model_copy(update={"on_bad_object": on_bad_object})
    return Pipeline(SPEC.model_copy(update={"name": "shop", "source": source}))


def land(platform, name, data):
    target = platform.settings.landing / "shop" / f"dt={DAY}" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    take_in(platform, pipeline(), settle=0.0)


@pytest.fixture
def platform(tmp_path):
    """A platform on which one good file is published."""
    opened = open_platform(load_settings(home=tmp_path))
    land(opened, "good.csv", ROWS)
    admit(opened, pipeline(), DAY, "run-1")
    assert process(opened, pipeline(), DAY, "run-1").published
    return opened


@pytest.mark.parametrize(
    ("build", "row", "column", "reason"), [case[1:] for case in TABLES], ids=[c[0] for c in TABLES]
)
def test_a_bad_file_is_set_aside_and_the_published_data_stays(platform, build, row, column, reason):
    """The event says why, the record names row and column, and the manifests are as before."""
    before = platform.registry.partitions.get("shop", DAY)
    land(platform, "bad.csv", build())

    done = admit(platform, pipeline(), DAY, "run-2")

    after = platform.registry.partitions.get("shop", DAY)
    assert before.raw.digest == after.raw.digest
    assert before.processed == after.processed
    states = {e.key: e.state for e in platform.registry.ledger.events("shop")}
    assert {f"shop/dt={DAY}/good.csv": "done", f"shop/dt={DAY}/bad.csv": "quarantined"} == states
    assert reason in done.quarantined[f"shop/dt={DAY}/bad.csv"]
    (key,) = platform.lake.list("logs/shop/quarantine")
    record = json.loads(platform.lake.get(key))
    assert (row, column) == (record["row"], record["column"])
    assert build() == platform.lake.get(record["path"])


@pytest.mark.parametrize(
    ("build", "check", "reason"), [case[1:] for case in AUDITED], ids=[c[0] for c in AUDITED]
)
def test_what_the_audit_refuses_is_not_published(platform, build, check, reason):
    """The check named says why, and the processed data before it stays."""
    before = platform.registry.partitions.get("shop", DAY)
    land(platform, "good.csv", build())
    admit(platform, pipeline(), DAY, "run-2")

    done = process(platform, pipeline(), DAY, "run-2")

    (failed,) = [outcome for outcome in done.audit.checks if outcome.name == check]
    assert (False, False) == (done.published, failed.passed)
    assert reason in failed.reason
    after = platform.registry.partitions.get("shop", DAY)
    assert (before.processed, before.processed_from) == (after.processed, after.processed_from)


def test_a_bad_overwrite_keeps_the_good_version(platform):
    """An unusable new version of an object is quarantined; the version before stays published."""
    land(platform, "good.csv", GOOD.replace(b"31", b"old"))

    done = admit(platform, pipeline(), DAY, "run-2")

    assert 8 == done.manifest.rows
    states = sorted(e.state for e in platform.registry.ledger.events("shop"))
    assert ["done", "quarantined"] == states


def test_a_pipeline_may_fail_instead(platform):
    """With on_bad_object: fail the run ends with BadObject, and the file stays to be taken."""
    before = platform.registry.partitions.get("shop", DAY)
    land(platform, "bad.csv", b"")

    with pytest.raises(BadObject, match="is empty"):
        admit(platform, pipeline("fail"), DAY, "run-2")

    assert before == platform.registry.partitions.get("shop", DAY)
    assert [f"shop/dt={DAY}/bad.csv"] == [
        e.key for e in platform.registry.ledger.open_events("shop")
    ]


def test_a_file_whose_writer_went_on_is_taken_as_it_is_now(platform):
    """Bytes that changed after they were recorded are a new version: neither lost nor misnamed."""
    land(platform, "late.csv", GOOD)
    (event,) = platform.registry.ledger.open_events("shop")
    path = platform.lake.local_path(event.path)
    path.write_bytes(path.read_bytes() + b"99,Bonn,no\n")

    first = admit(platform, pipeline(), DAY, "run-2")
    second = admit(platform, pipeline(), DAY, "run-3")

    assert (8, 10) == (first.manifest.rows, second.manifest.rows)
    states = [e.state for e in platform.registry.ledger.events("shop") if e.key == event.key]
    assert ["done", "superseded"] == sorted(states)
    assert process(platform, pipeline(), DAY, "run-3").published


def test_published_bytes_that_change_later_stop_the_partition(platform):
    """A pinned object that was tampered with is named, and the published data stays."""
    before = platform.registry.partitions.get("shop", DAY)
    (event,) = platform.registry.ledger.events("shop")
    platform.lake.local_path(event.path).write_bytes(GOOD)

    with pytest.raises(BadObject, match="changed after"):
        process(platform, pipeline(), DAY, "run-2")

    assert before == platform.registry.partitions.get("shop", DAY)


def test_landing_a_damaged_object_again_heals_the_partition(platform):
    """A corrected file under the same name replaces the one whose bytes were damaged."""
    (event,) = platform.registry.ledger.events("shop")
    platform.lake.local_path(event.path).write_bytes(GOOD)
    land(platform, "good.csv", ROWS + b"77,Bonn,no\n")

    done = admit(platform, pipeline(), DAY, "run-2")

    assert 9 == done.manifest.rows
    assert process(platform, pipeline(), DAY, "run-2").published


def test_word_of_an_old_put_does_not_win_over_a_newer_version(platform, monkeypatch, tmp_path):
    """An intake dies unacknowledged, a newer version comes, the old is told again: no change."""
    notifications = platform.notifications
    with monkeypatch.context() as patch:
        patch.setattr(type(notifications), "acknowledge", lambda *_: None)
        land(platform, "a.csv", ROWS)  # recorded, and its file stays where it was taken to
    newer = tmp_path / "a.csv"
    newer.write_bytes(GOOD)
    ingest_files(platform, pipeline(), [newer], DAY)

    take_in(platform, pipeline(), settle=0.0)
    done = admit(platform, pipeline(), DAY, "run-2")

    held = {item.key: item.rows for item in done.manifest.objects}
    assert 1 == held[f"shop/dt={DAY}/a.csv"]


def test_an_older_content_put_again_is_current_again(platform):
    """A, then B, then A: what was put last is what counts."""
    for data in (ROWS, GOOD, ROWS):
        land(platform, "a.csv", data)

    done = admit(platform, pipeline(), DAY, "run-2")

    held = {item.key: item.rows for item in done.manifest.objects}
    assert 8 == held[f"shop/dt={DAY}/a.csv"]


def test_files_that_would_share_a_name_are_refused_before_any_is_taken(platform, tmp_path):
    """Two files of one name in one call would replace each other: neither is taken."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.csv").write_bytes(GOOD)
    files = [tmp_path / "x" / "data.csv", tmp_path / "y" / "data.csv"]

    with pytest.raises(BadObject, match="would get this name"):
        ingest_files(platform, pipeline(), files, DAY)

    assert 1 == len(list(platform.registry.ledger.events("shop")))


def test_equal_files_under_two_names_are_both_done(platform):
    """Two objects with the same bytes are two objects, each with its own fate."""
    land(platform, "x.csv", GOOD)
    land(platform, "y.csv", GOOD)

    done = admit(platform, pipeline(), DAY, "run-2")

    assert 10 == done.manifest.rows
    assert {"done"} == {e.state for e in platform.registry.ledger.events("shop")}


def test_a_reason_is_never_as_long_as_the_file(platform):
    """A header with a name of megabytes is refused in a few words."""
    land(platform, "bad.csv", b"age,city,bought," + b"x" * 3_000_000 + b"\n1,Rome,no,1\n")

    admit(platform, pipeline(), DAY, "run-2")

    (event,) = platform.registry.ledger.events("shop", state="quarantined")
    assert 3000 > len(event.reason)
    (key,) = platform.lake.list("logs/shop/quarantine")
    assert 5000 > len(platform.lake.get(key))
