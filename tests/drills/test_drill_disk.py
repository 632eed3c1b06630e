"""The disk is full at one write after another: refused by name, nothing half, and room is enough.

RLIMIT_FSIZE makes the kernel refuse the very write (EFBIG) without touching the machine's disk, in
the process and in everything that it starts. One home is on a small volume that really fills up.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from drilling import ALL, DATA, DAYS, NAME

from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.services.releases.deployment import answer_golden

DAY = DAYS[0]
REGISTRY = "registry.db"
INGEST = [  # (the call during which files cannot grow, the bytes they may have, the object named)
    ("registry.ledger.record", "", 0, REGISTRY),
    ("registry.leases.acquire", "", 0, REGISTRY),
    ("registry.ledger.claim", "", 0, REGISTRY),
    ("lake.put", "_manifests/", 100, "_manifests/"),
    ("registry.partitions.update", "", 0, REGISTRY),
    ("registry.ledger.settle", "", 0, REGISTRY),
    ("lake.put", ".parquet", 1000, "part-"),
    ("lake.put", "/manifest.json", 100, "/manifest.json"),
]
TRAIN = [
    ("ml_control.services.models.training:write_channels", "", 2000, "/channels/"),
    ("trainer.train", "", 0, f"{NAME}-"),
    ("trainer.train", "", 3000, f"{NAME}-"),
    ("registry.models.record_trial", "", 0, REGISTRY),
    ("lake.put", "model.tar.gz", 1000, "model.tar.gz"),
    ("lake.put", "golden.json", 1000, "golden.json"),
    ("registry.models.record_verdict", "", 0, REGISTRY),
    ("registry.models.register", "", 0, REGISTRY),
]
DEPLOY = [
    ("endpoints.deploy", "", 0, f"{NAME}-b"),
    ("endpoints.deploy", "", 700, f"{NAME}-b"),
    ("endpoints._start", "", 0, f"{NAME}-b"),
    ("registry.rollouts.write", "", 0, REGISTRY),
]


def full(home, work, step):
    """One run on a disk that is full for this write; it must be refused, naming the object."""
    at, match, size, named = step
    error = home.refused(work, limit={"at": at, "match": match, "bytes": size})

    assert ("PlatformFailed", True) == (error["kind"], named in error["object"]), (step, error)
    assert "free space" in error["next"] or "log" in error["reason"], (step, error)
    return error


def test_a_full_disk_while_ingesting_loses_nothing(published, tables):
    """Ledger, manifest, Parquet: each refused in turn, what is published stays; then all is in."""
    home = published
    before = home.state()["partitions"][DAY]["processed"]
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.land(f"dt={DAY}/bad.csv", b"no,table\n1,2\n")
    lasting = home.lasting()

    for step in INGEST:
        full(home, DATA, step)

        home.check_intact(lasting)
        assert before == home.state()["partitions"][DAY]["processed"], step

    home.do(DATA)
    home.check_ledger()
    home.check_intact(lasting)


def test_a_full_disk_while_training_gives_the_same_model_later(published, served_template):
    """Channels, job, archive, verdict: each refused in turn; with room, the very same model."""
    home = published
    lasting = home.lasting()

    for step in TRAIN:
        full(home, [["train"]], step)

        home.check_intact(lasting)
        assert home.registry.models.candidate(NAME) is None, step
        assert "NotProven" == home.start([["deploy"]]).answer()["error"]["kind"]

    home.do(ALL[2:])
    assert served_template.first == home.registry.rollouts.get(NAME).champion
    home.check_serving()
    assert 1 == len(home.alive())


def test_a_full_disk_while_deploying_leaves_the_old_model_serving(served):
    """Endpoint folder and Rollout: refused in turn, and the earlier model answers all the while."""
    home = served
    before = home.registry.rollouts.get(NAME)
    old = before.variants[before.live]
    proven = require_once_proven(home.platform, home.pipeline, old.model_version)

    for step in DEPLOY:
        full(home, [["deploy"], ["route"]], step)

        after = home.registry.rollouts.get(NAME)
        assert (before.champion, before.live) == (after.champion, after.live), step
        assert answer_golden(home.platform, old.endpoint, proven) > 0
        assert 1 + (step is DEPLOY[-1]) == len(home.servers()), step

    home.do([["deploy"], ["route"]])
    assert before.champion != home.registry.rollouts.get(NAME).champion
    home.check_serving()


@pytest.mark.parametrize("area", ["raw", "processed", "artifacts"])
def test_a_file_in_the_place_of_a_folder_is_refused(published, tables, area):
    """Where a folder of the lake cannot be made, the run names the object and changes nothing."""
    home = published
    home.land(f"dt={DAYS[1]}/tumours.csv", tables[DAYS[1]])
    place = {"raw": f"{NAME}/_manifests/{DAYS[1]}", "processed": f"{NAME}/dt={DAYS[1]}"}
    blocked = home.folder / "lake" / area / place.get(area, NAME)
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    lasting, before = home.lasting(), home.state()["partitions"].get(DAY)

    error = home.refused([["take_in"], ["ingest"], ["train"]])

    assert "PlatformFailed" == error["kind"], error
    assert area in error["object"], error
    home.check_intact(lasting)
    assert before == home.state()["partitions"].get(DAY)
    blocked.unlink()
    home.do([["take_in"], ["ingest"], ["train"]])
    home.check_ledger()


FREE = (0, 8, 32, 96, 256)  # KiB left on the volume


@pytest.fixture
def volume(tmp_path):
    """(the folder of a home, whether it is a small volume of its own: only root may mount one)."""
    folder = tmp_path / "home"
    folder.mkdir()
    mount = [shutil.which("mount") or "false", "-t", "tmpfs", "-o", "size=64m", "tmpfs"]
    mounted = subprocess.run([*mount, folder], capture_output=True, check=False).returncode == 0
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder, free):
    """A file that leaves so many KiB; gives it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        space = os.statvfs(folder)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - free * 1024 or 1)
    return ballast


def test_a_full_volume_refuses_by_name_and_loses_nothing(volume, published_template, tables):
    """With next to no room, then a little more each time, a run is refused and what is published
    stays; with room, everything is taken in.
    """
    folder, mounted = volume
    home = published_template.copy(folder)
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    lasting, before = home.lasting(), home.state()["partitions"][DAY]["processed"]
    refused = 0

    for free in FREE:
        home.released()
        limit = {"at": "registry.ledger.record", "match": "", "bytes": free * 1024}
        ballast = fill(folder, free) if mounted else None
        answer = home.start(DATA, **({} if mounted else {"limit": limit})).answer()
        home.check_intact(lasting)
        if ballast:
            ballast.unlink()
        if "done" in answer:
            break
        refused += 1
        assert "PlatformFailed" == answer["error"]["kind"], (free, answer)
        assert answer["error"]["next"], answer
        assert before == home.state()["partitions"][DAY]["processed"], free

    assert refused > 0
    home.do(DATA)
    home.check_ledger()
    home.check_intact(lasting)
    home.end()
