"""Sensors killed in mid-submission and at random: every file is ingested, once, in a few runs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from drilling import DAYS, NAME, Home, write_pipeline

from ml_control.core.digests import sha256

DRIVER = Path(__file__).with_name("sensor_loop.py")
POINTS = ("TICK_CREATED", "TICK_HELD", "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED")
KILLS = 20
INSTANCE = """\
telemetry: {enabled: false}
run_launcher:
  module: dagster._core.launcher.sync_in_memory_run_launcher
  class: SyncInMemoryRunLauncher
run_coordinator:
  module: dagster.core.run_coordinator
  class: DefaultRunCoordinator
"""


class Driver:
    """The process that runs sensors in children; each may be killed by its pid."""

    def __init__(self, home, folder):
        dagster_home = home.folder / "dagster"
        dagster_home.mkdir(parents=True)
        (dagster_home / "dagster.yaml").write_text(INSTANCE)
        self.log = folder / "driver.log"
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, str(DRIVER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**home.environment, "DAGSTER_HOME": str(dagster_home)},
                text=True,
            )
        assert "ready" in self._said()

    def _said(self):
        line = self.popen.stdout.readline()
        assert line, self.log.read_text(errors="replace")[-3000:]
        return json.loads(line)

    def begin(self, **order):
        """Start a piece of work; gives the child's pid."""
        self.popen.stdin.write(json.dumps(order) + "\n")
        self.popen.stdin.flush()
        return self._said()["pid"]

    def ended(self):
        """Wait for the child; gives how it ended."""
        return self._said()

    def do(self, **order):
        """A piece of work that must not fail; gives its answer."""
        self.begin(**order)
        found = self.ended()
        assert 0 == found["status"], self.log.read_text(errors="replace")[-3000:]
        return found["answer"]

    def end(self):
        """Let the process end."""
        self.popen.stdin.close()
        self.popen.wait(60)
        self.popen.stdout.close()


@pytest.fixture
def driven(tmp_path):
    """A home without retraining, and the process that runs its sensors."""
    write_pipeline(tmp_path / "pipelines")
    file = tmp_path / "pipelines" / NAME / "defs.yaml"
    document = yaml.safe_load(file.read_text())
    document["attributes"]["retrain"] = {"automatic": False}
    document["attributes"]["source"]["settle"] = "0 s"
    document["attributes"]["quality"] = {"min_rows": 1}
    file.write_text(yaml.safe_dump(document))
    home = Home(tmp_path / "home", tmp_path / "pipelines")
    driver = Driver(home, tmp_path)
    yield home, driver
    driver.end()
    home.end()


def small(tables, count):
    """Small tables: each row of the days is in one of them."""
    lines = [line for day in DAYS for line in tables[day].splitlines(keepends=True)[1:]]
    header = tables[DAYS[0]].splitlines(keepends=True)[0]
    return [header + b"".join(lines[i::count]) for i in range(count)]


@pytest.mark.timeout(600)
def test_a_daemon_that_dies_at_any_point_of_a_tick_loses_nothing(driven, tables):
    """Killed before evaluating, after it, between two submissions: the next daemon completes it."""
    home, driver = driven
    parts, ahead = small(tables, 2 * len(POINTS)), 0
    for number, point in enumerate(POINTS):
        home.land(f"dt={DAYS[0]}/{point}-a.csv", parts[2 * number])
        home.land(f"dt={DAYS[1]}/{point}-b.csv", parts[2 * number + 1])
        ahead += 10
        driver.begin(do="iterate", crash=point, ahead=ahead)
        died = driver.ended()
        assert died["killed"], f"{point} was not reached"
        home.released()
        for _ in range(4):  # the first finishes the tick that was cut off
            ahead += 10
            runs = driver.do(do="iterate", ahead=ahead)
            if not sum(home.registry.ledger.counts(NAME)[s] for s in ("pending", "claimed")):
                break

        home.check_ledger()
        assert runs <= 4 * (number + 1), point
    assert 2 * len(POINTS) == home.registry.ledger.counts(NAME)["done"]


@pytest.mark.timeout(900)
def test_sensors_and_runs_killed_at_random_lose_nothing(driven, tables):
    """Files land while ticks and runs are killed: each time all of them are accounted for, once."""
    home, driver = driven
    parts = small(tables, 60)
    landed, last = 0, {}

    def land(choose):
        nonlocal landed
        day = choose.choice(DAYS)
        name = f"dt={day}/{f'same-{landed % 3}' if choose.random() < 0.3 else landed}.csv"
        home.land(name, parts[landed % len(parts)])
        last[f"{NAME}/{name}"] = sha256(parts[landed % len(parts)])
        landed += 1

    for seed in range(KILLS):
        choose = random.Random(seed)
        for _ in range(choose.randrange(1, 3)):
            land(choose)
        child = driver.begin(do="loop", seconds=30)
        until = time.monotonic() + choose.uniform(0.0, 1.2)
        while time.monotonic() < until:
            if landed < 3 * (seed + 1):
                land(choose)
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        assert driver.ended()["killed"], f"seed {seed}"
        runs = driver.do(do="drain")

        try:
            forget_what_its_owner_replaced(home, last)
            home.check_ledger()
            assert runs <= landed + 2 * (seed + 1)
        except AssertionError as error:
            raise AssertionError(f"seed {seed} after {landed} files: {error}") from error
    assert landed > KILLS


def forget_what_its_owner_replaced(home, last):
    """A version that was overwritten in the landing folder before any tick was never accepted."""
    known = {(event.key, event.version) for event in home.registry.ledger.events(NAME)}
    home.puts -= {(key, version) for key, version in home.puts - known if last[key] != version}
