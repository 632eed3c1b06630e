"""Hostile object names, through the landing folder and through ``ingest``."""

from __future__ import annotations

import pytest
from bad_files import GOOD, SPEC
from bad_keys import ADMITTED, LANDED

from ml_control.core.digests import sha256
from ml_control.core.pipeline import Pipeline
from ml_control.errors import BadObject
from ml_control.platform import open_platform
from ml_control.services.arrivals.intake import take_in
from ml_control.services.data.dataset import admit
from ml_control.settings import load_settings

PIPELINE = Pipeline(SPEC.model_copy(update={"name": "shop"}))


@pytest.fixture
def platform(tmp_path):
    return open_platform(load_settings(home=tmp_path / "home"))


def outside(platform, tmp_path):
    """Files that are in none of the pipeline's own folders."""
    home = platform.settings.home
    own = [home / "landing" / "shop", home / "lake" / "raw" / "shop"]
    own += [home / "lake" / "logs" / "shop", home / "lake" / "processed" / "shop"]
    return [
        path
        for path in tmp_path.rglob("*")
        if path.is_file()
        and not path.name.startswith("registry.db")
        and path != tmp_path / "given.csv"
        and not any(path.is_relative_to(folder) for folder in own)
    ]


@pytest.mark.parametrize(
    ("name", "partition", "reason"), [row[1:] for row in LANDED], ids=[row[0] for row in LANDED]
)
def test_a_landed_name_is_taken_in_or_set_aside_with_its_reason(
    platform, tmp_path, name, partition, reason
):
    """Exactly one event is recorded; its bytes stay whole and within the pipeline's folders."""
    path = platform.settings.landing / "shop" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(GOOD)

    take_in(platform, PIPELINE, settle=0.0)

    (event,) = platform.registry.ledger.events("shop")
    assert ("quarantined" if reason else "pending") == event.state
    assert reason in (event.reason or "")
    assert [] == outside(platform, tmp_path)
    assert not path.exists()
    if reason:
        assert not list(platform.registry.partitions.all("shop"))
        return
    assert (partition, f"shop/{name}") == (event.partition, event.key)
    assert sha256(GOOD) == sha256(platform.lake.get(event.path))
    assert 1 == admit(platform, PIPELINE, partition, "run").manifest.rows


@pytest.mark.parametrize(
    ("key", "reason"), [row[1:] for row in ADMITTED], ids=[row[0] for row in ADMITTED]
)
def test_a_given_key_is_accepted_or_refused_before_anything_is_written(
    platform, tmp_path, key, reason
):
    """A key that would leave the folder is ``BadObject``, and no file appears anywhere."""
    given = tmp_path / "given.csv"
    given.write_bytes(GOOD)

    if reason:
        with pytest.raises(BadObject) as refused:
            platform.notifications.admit("shop", key, given)
        assert reason in refused.value.reason
        assert refused.value.next
        assert [] == list(platform.lake.list("raw/shop"))
    else:
        notice = platform.notifications.admit("shop", key, given)
        assert GOOD == platform.lake.get(notice.path)
    assert [] == outside(platform, tmp_path)


def test_names_that_differ_only_in_what_the_lake_cannot_hold_stay_apart(platform):
    """``a b``, ``a?b`` and ``a_b`` look alike in the lake, and are three objects all the same."""
    names = ["a b.csv", "a?b.csv", "a_b.csv", "A_B.csv"]
    for number, name in enumerate(names):
        path = platform.settings.landing / "shop" / "dt=2026-03-04" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GOOD + b"%d,Rome,no\n" % number)

    take_in(platform, PIPELINE, settle=0.0)
    done = admit(platform, PIPELINE, "2026-03-04", "run")

    assert 4 == len({item.path for item in done.manifest.objects})
    assert 8 == done.manifest.rows
