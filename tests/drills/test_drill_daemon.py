"""The whole platform under ``up``, killed piece by piece while files keep landing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import httpx
import psutil
import pytest
from drilling import DAYS, NAME, until

from ml_control.local.files import read_json

FILES = 9  # in all, a few of them between any two kills
LONG = 240.0


class Up:
    """A real ``ml-control up``, in a session of its own."""

    def __init__(self, home, log):
        self.home, self.log = home, log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "ml_control", "up", "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=home.environment,
                cwd=home.folder,
                start_new_session=True,
            )
        until(self.ready, f"up: {log}", 90)

    def ready(self):
        """Whether it said that it is up."""
        said = self.log.read_text(errors="replace")
        assert self.popen.poll() is None, said
        return "up: Dagster at" in said

    @property
    def state(self):
        """What it wrote about itself."""
        return read_json(self.home.folder / "up.json")

    def kill_child(self, name):
        """SIGKILL one of its processes, and wait until another took its place."""
        old = self.state["children"][name]["pid"]
        psutil.Process(old).kill()
        until(lambda: self.state["children"][name]["pid"] != old, f"another {name}", 30)

    def kill_group(self):
        """SIGKILL to its whole process group, and to nobody else."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(30)


def tables_of(tables, count):
    """Small tables: each row of the days is in one of them."""
    lines = [line for day in DAYS for line in tables[day].splitlines(keepends=True)[1:]]
    header = tables[DAYS[0]].splitlines(keepends=True)[0]
    return [header + b"".join(lines[i::count]) for i in range(count)]


def settled(home):
    """Whether everything that was put is finished, published, trained on and live."""
    registry = home.registry
    counts = registry.ledger.counts(NAME)
    if counts["pending"] or counts["claimed"] or sum(counts.values()) < len(home.puts):
        return False
    if list(registry.partitions.stale(NAME)) or registry.leases.held(NAME):
        return False
    rollout = registry.rollouts.get(NAME)
    candidate = registry.models.candidate(NAME)
    if rollout.champion is None or candidate is None or candidate.version != rollout.champion:
        return False
    used = {part.partition: part.digest for part in candidate.dataset.parts}
    return used == {s.partition: s.processed.digest for s in registry.partitions.all(NAME)}


@pytest.mark.timeout(600)
def test_the_platform_survives_kills_of_its_parts_while_files_land(empty, tables, tmp_path):
    """Daemon, code server and the whole group of ``up`` are killed; in the end every object is
    accounted for, in the published manifests, and the endpoint serves the model of all of them.
    """
    home = empty
    parts = tables_of(tables, FILES)

    def land(chosen):
        for i in chosen:
            home.land(f"dt={DAYS[i % 2]}/part-{i}.csv", parts[i])

    def recorded(count):
        return lambda: sum(home.registry.ledger.counts(NAME).values()) >= count

    land([0, 1])
    up = Up(home, tmp_path / "up-1.log")
    until(recorded(2), "the first files in the ledger", LONG, every=0.5)
    land([2])
    up.kill_child("daemon")
    land([3, 4])
    until(recorded(5), "files that landed after the daemon was killed", LONG, every=0.5)
    up.kill_child("code")
    land([5])
    until(recorded(6), "files that landed after the code server was killed", LONG, every=0.5)
    land([6, 7])
    left = up.state["children"]
    up.kill_group()
    land([8])
    up = Up(home, tmp_path / "up-2.log")

    alive = {process.pid for process in home.alive()}
    assert set() == {child["pid"] for child in left.values()} & alive, "two platforms on one home"
    until(
        lambda: settled(home),
        f"all of {home.folder} finished and live; see its logs/",
        LONG,
        every=0.5,
    )
    home.check_ledger()
    home.check_serving()
    assert 200 == httpx.get(f"{up.state['ui']}/server_info").status_code
    home.down()
    assert [] == home.alive()
    assert 0 == up.popen.wait(30)
