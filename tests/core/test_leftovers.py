"""Parts that no manifest lists go away once they are old; all others stay."""

from __future__ import annotations

import os
import time

import pytest

from ml_control.core.pipeline import Pipeline
from ml_control.platform import open_platform
from ml_control.services.arrivals.intake import take_in
from ml_control.services.data.dataset import admit, load_processed, process
from ml_control.services.data.staging import parts_folder
from ml_control.settings import load_settings
from ml_control.spec import PipelineSpec

DAY = "2026-03-04"
PIPELINE = Pipeline(
    PipelineSpec.model_validate(
        {
            "name": "shop",
            "source": {"format": "csv", "partition": {"start": DAY}},
            "columns": {
                "target": "bought",
                "features": [{"name": "age", "type": "number"}],
                "task": "binary",
                "positive": "yes",
            },
        }
    )
)


@pytest.fixture
def platform(tmp_path):
    return open_platform(load_settings(home=tmp_path))


def publish(platform, first: int) -> list[str]:
    """Land other rows under the same key and publish them; the parts that are listed then."""
    target = platform.settings.landing / "shop" / f"dt={DAY}" / "a.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{first + i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    target.write_text("age,bought\n" + rows)
    take_in(platform, PIPELINE, settle=0.0)
    admit(platform, PIPELINE, DAY, "run")
    done = process(platform, PIPELINE, DAY, "run")
    assert done.published
    return [file.path for file in done.manifest.files]


def stray(platform, name: str) -> str:
    key = f"{parts_folder(PIPELINE, DAY)}/{name}"
    platform.lake.put(key, b"left by a run that died")
    return key


def age(platform, *keys: str, hours: float) -> None:
    at = time.time() - hours * 3600
    for key in keys:
        os.utime(platform.lake.local_path(key), (at, at))


def parts(platform) -> set[str]:
    return set(platform.lake.list(parts_folder(PIPELINE, DAY)))


def test_only_old_parts_that_no_manifest_lists_go(platform):
    """What any manifest ever published lists stays, however old, and so does what is new."""
    before = publish(platform, 1)
    earlier = platform.registry.partitions.get("shop", DAY).processed
    old, new = stray(platform, "part-old.parquet"), stray(platform, "part-new.parquet")
    foreign = stray(platform, "notes.txt")
    age(platform, *before, old, foreign, hours=25)
    age(platform, new, hours=23)

    now = publish(platform, 100)

    assert {*before, *now, new, foreign} == parts(platform)
    manifest = load_processed(platform, earlier.path, earlier.digest)
    assert before == [file.path for file in manifest.files]


def test_a_part_that_is_staged_again_counts_as_new(platform):
    """A run writes a part that lies there already, and nothing removes it from under the run."""
    key = stray(platform, "part-again.parquet")
    age(platform, key, hours=48)
    stray(platform, "part-again.parquet")

    publish(platform, 1)

    assert key in parts(platform)


def test_nothing_goes_while_a_manifest_cannot_be_read(platform):
    """A damaged manifest may list anything, so every part stays and the partition is published."""
    publish(platform, 1)
    damaged = f"{parts_folder(PIPELINE, DAY).rpartition('/')[0]}/0123/manifest.json"
    platform.lake.put(damaged, b"{")
    key = stray(platform, "part-old.parquet")
    age(platform, key, hours=48)

    publish(platform, 100)

    assert key in parts(platform)


def test_a_lake_that_removes_nothing_still_publishes(platform, monkeypatch):
    """Without permission to remove, the partition is published and the waste stays."""
    from ml_control.errors import PlatformFailed
    from ml_control.lake import Lake

    def refuse(self, key):
        raise PlatformFailed(key, "could not be removed", "check permissions")

    monkeypatch.setattr(Lake, "delete", refuse)
    key = stray(platform, "part-old.parquet")
    age(platform, key, hours=48)

    publish(platform, 1)

    assert key in parts(platform)
