"""Channel files: cut into shards, whole or not there, forgotten when nothing needs them."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace

import pytest

from ml_control.errors import BadObject, PlatformFailed
from ml_control.services.models import channels as subject


def folders(home):
    """Channel folders of the home, private ones among them."""
    return sorted((home.path / "lake" / "artifacts" / "tumours" / "channels").glob("*"))


def test_shards_give_the_same_model(audited, monkeypatch):
    """A channel in several files trains the very bytes that it trains in one."""
    whole = audited.train()
    (folder,) = folders(audited)
    assert 1 == len(list(folder.glob("train-*.csv")))
    lines = (folder / "train-00000.csv").read_bytes()
    files = audited.platform.trainer.train
    seen = {}

    def trained(job, on_round):
        seen.update(job.channels)
        return files(job.__class__(**{**vars(job), "name": f"{job.name}x"}), on_round)

    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    monkeypatch.setattr(subject, "SHARD_BYTES", 1000)
    platform = audited.platform
    monkeypatch.setattr(platform.trainer, "train", trained)
    from ml_control.services.models.training import train

    again = train(platform, audited.pipeline(), "again", lambda _: None)

    assert len(seen["train"]) > 1
    assert lines == b"".join(path.read_bytes() for path in seen["train"])
    assert not again.result.adopted
    assert whole.result.model.read_bytes() == again.result.model.read_bytes()


@pytest.mark.parametrize("step", ["_write", "_sync", "_renamed", "seal"])
def test_a_full_disk_leaves_nothing_behind(audited, monkeypatch, step):
    """The refusal is typed, no folder stays, and the next training goes through."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_):
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(subject, step, refuse)
        with pytest.raises(PlatformFailed, match="No space left"):
            audited.train()

    assert [] == folders(audited)
    if step == "_renamed":
        assert audited.train().verdict.passed


def test_channels_lie_on_this_machine_where_the_lake_does_not(audited, monkeypatch):
    """The same bytes in the home's scratch folder, sealed and whole or not there, as in a lake."""
    from ml_control.core.features import fit
    from ml_control.core.profile import merge
    from ml_control.services.models.selection import select

    here, pipeline = audited.platform, audited.pipeline()
    away = replace(here, settings=here.settings.model_copy(update={"platform": "aws"}))
    dataset = select(here, pipeline).dataset
    features = fit(pipeline.spec, merge(subject.profiles(here, dataset)))
    in_lake = subject.write_channels(here, pipeline, dataset, features).folder
    scratch = audited.path / "scratch" / "artifacts" / "tumours" / "channels"

    with monkeypatch.context() as patched:
        patched.setattr(subject, "seal", refuse)
        with pytest.raises(PlatformFailed, match="No space left"):
            subject.write_channels(away, pipeline, dataset, features)
    assert [] == list(scratch.iterdir())
    aside = subject.write_channels(away, pipeline, dataset, features).folder

    assert scratch / in_lake.name == aside
    names = sorted(path.name for path in in_lake.iterdir())
    assert names == sorted(path.name for path in aside.iterdir())
    assert all((in_lake / n).read_bytes() == (aside / n).read_bytes() for n in names)
    (aside / "train-00000.csv").write_bytes(b"1,2\n")
    with pytest.raises(BadObject, match="was changed"):
        subject.write_channels(away, pipeline, dataset, features)


def refuse(*_):
    """What a full disk says."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_scratch_folder_that_cannot_be_made_is_told(audited):
    """With the folder's name, typed."""
    platform = audited.platform
    away = replace(platform, settings=platform.settings.model_copy(update={"platform": "aws"}))
    (audited.path / "scratch").write_text("in the way")

    with pytest.raises(PlatformFailed, match="could not be made"):
        away.scratch("artifacts/x")


def test_the_newest_channels_and_those_in_use_stay(tmp_path):
    """Older ones go, and what a killed writer left a day ago; what is being written stays."""
    now = time.time()
    ages = {"used": 9e5, "old": 8e5, "older": 8.5e5, "new": 10, "newer": 5, ".w.1": 60, ".d.2": 2e5}
    for name, age in ages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "train-00000.csv").touch()
        os.utime(tmp_path / name, (now - age, now - age))

    subject.tidy(subject.Channels(tmp_path / "used", []))

    assert {"used", "new", "newer", ".w.1"} == {path.name for path in tmp_path.iterdir()}
