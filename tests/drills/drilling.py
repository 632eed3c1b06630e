"""What drills share: a home in a folder, the processes started on it, and what must hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

from ml_control.core.artifact import version_of
from ml_control.core.digests import sha256
from ml_control.core.records import RawManifest
from ml_control.platform import open_platform
from ml_control.services.authoring.pipelines import read_folder
from ml_control.services.data.dataset import load_processed, load_raw, read_parquet
from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.services.releases.deployment import answer_golden
from ml_control.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
NAME = "tumours"
VICTIM = Path(__file__).with_name("victim.py")
DAYS = ("2026-11-01", "2026-11-02", "2026-11-03")
PATIENCE = 120.0
FINAL = {"done", "quarantined", "superseded"}
DATA = [["take_in"], ["ingest"]]
ALL = [*DATA, ["train"], ["deploy"], ["route"]]


def until(condition, what, seconds=PATIENCE, every=0.02):
    """Wait for a condition; gives its first true value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(every)
    return found


def write_pipeline(folder, retrain=None, **training):
    """The tumours example without its slow suite and with gates that small samples pass."""
    document = yaml.safe_load((ROOT / "pipelines" / NAME / "defs.yaml").read_text())
    attributes = document["attributes"]
    del attributes["quality"]["expectations"]
    attributes["source"]["quiet"] = "0 s"
    attributes["gates"] = {"metrics": {"auc": {"min": 0.8}}, "champion": {"margin": 0.2}}
    attributes["training"] = {
        "hyperparameters": {"num_round": 12, "max_depth": 3, "eta": 0.3},
        "early_stopping_rounds": 10,
        **training,
    }
    if retrain is not None:
        attributes["retrain"] = retrain
    (folder / NAME).mkdir(parents=True)
    (folder / NAME / "defs.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


class Nursery:
    """The warm process that forks this test session's victims; started when first needed."""

    def __init__(self):
        self.popen = None

    def fork(self, plan, home, folder, output):
        """The process that does a plan."""
        if self.popen is None:
            self.popen = subprocess.Popen(
                [sys.executable, str(VICTIM.with_name("nursery.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        order = {"plan": plan, "env": home.environment, "cwd": str(folder), "output": str(output)}
        self.popen.stdin.write(json.dumps(order) + "\n")
        self.popen.stdin.flush()
        return psutil.Process(int(self.popen.stdout.readline()))

    def close(self):
        """End it; what it forked goes on."""
        if self.popen is not None:
            self.popen.stdin.close()
            self.popen.wait(PATIENCE)
            self.popen.stdout.close()
            self.popen = None


NURSERY = Nursery()


class Process:
    """A victim: started, awaited at its marker, killed or paused, or let go on."""

    def __init__(self, home, plan, folder):
        self.marker = folder / "marker"
        self.output = folder / "output"
        self.output.touch()
        plan = {"pipeline": NAME, "marker": str(self.marker), **plan}
        self.process = NURSERY.fork(plan, home, folder, self.output)

    @property
    def said(self):
        """Everything it printed."""
        return self.output.read_text(errors="replace")

    def reached(self):
        """Wait until it stands at its point."""
        assert self.stands(), f"it ended before its point: {self.said}"
        return self

    def stands(self):
        """Wait until it stands at its point or has ended; whether it stands."""
        until(lambda: self.marker.exists() or not self.process.is_running(), "marker or end")
        return self.marker.exists()

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def pause(self):
        """SIGSTOP, and wait until it stands still."""
        self.process.suspend()
        until(lambda: self.process.status() == psutil.STATUS_STOPPED, "a stopped process")

    def go(self):
        """Let it go on from its point, also when it was paused."""
        self.marker.with_suffix(".go").touch()
        self.process.resume()

    def answer(self):
        """Wait for its end; gives how the work ended."""
        self.process.wait(PATIENCE)
        try:
            return json.loads(self.said.splitlines()[-1])
        except (IndexError, ValueError):
            raise AssertionError(f"it ended without an answer: {self.said}") from None


class Home:
    """One installation: its folder, its platform seen from here, and what was put into it."""

    def __init__(self, folder, pipelines, puts=()):
        self.folder, self.pipelines = folder, pipelines
        self.puts = set(puts)  # (key, SHA-256) of every object version that was landed
        self.processes = []
        self.platform = open_platform(
            load_settings(home=folder, pipelines=pipelines).model_copy(
                update={"lease_seconds": 1.0, "retry_seconds": 0.0}
            )
        )
        self.pipeline = read_folder(pipelines).get(NAME)
        self.registry, self.endpoints = self.platform.registry, self.platform.endpoints

    @property
    def environment(self):
        """What every process of this home is started with: leases of the dead expire in 1 s."""
        return {
            **os.environ,
            "ML_CONTROL_HOME": str(self.folder),
            "ML_CONTROL_PIPELINES": str(self.pipelines),
            "ML_CONTROL_LEASE_SECONDS": "1",
            "ML_CONTROL_RETRY_SECONDS": "0",
            "OMP_THREAD_LIMIT": "1",  # trainings of a few hundred rows only wait for each other
        }

    def copy(self, folder):
        """The same home at another place; nothing may be running in it."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Home(folder, self.pipelines, self.puts)

    def land(self, name, data):
        """Drop a file into the landing folder, whole."""
        path = self.platform.settings.landing / NAME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        draft.write_bytes(data)
        draft.rename(path)
        self.puts.add((f"{NAME}/{name}", sha256(data)))

    def start(self, work, run="run", **plan):
        """Start a process on this home: a victim when the plan has a ``stop``."""
        place = self.folder.with_name(f"{self.folder.name}-process-{len(self.processes)}")
        place.mkdir()
        process = Process(self, {"work": work, "run": run, **plan}, place)
        self.processes.append(process)
        return process

    def released(self):
        """Wait until the leases of the dead have expired."""
        until(lambda: not self.registry.leases.held(NAME), "expiry of the leases of the dead", 10)

    def stopped(self, work, at, when="before", run="victim", **stop):
        """Start a victim and wait until it stands at the point."""
        return self.start(work, run, stop={"at": at, "when": when, **stop}).reached()

    def do(self, work, run="again"):
        """The ordinary path in a fresh process, once the leases of the dead have expired."""
        self.released()
        answer = self.start(work, run).answer()
        assert "done" in answer, answer
        return answer["done"]

    def refused(self, work, run="refused", **plan):
        """Work that must end in a typed refusal; gives it. Every refusal names its next step."""
        self.released()
        answer = self.start(work, run, **plan).answer()
        assert "error" in answer, answer
        assert {"kind", "object", "reason", "next"} <= set(answer["error"])
        assert answer["error"]["next"], answer
        return answer["error"]

    def command(self, *arguments):
        """The real command of the home, in a process of its own: (status, stdout, stderr)."""
        done = subprocess.run(
            [sys.executable, "-m", "ml_control", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def down(self):
        """The real command that ends every process of the home."""
        code, _, said = self.command("down")
        assert code == 0, said

    def alive(self, containing=""):
        """Processes that were started for this home and still run."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("ML_CONTROL_HOME") == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append((process, " ".join(process.cmdline())))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return [process for process, command in found if containing in command]

    def servers(self):
        """Endpoint servers of this home that run."""
        return self.alive("ml_control.serving.endpoint")

    def end(self):
        """End, by pid, whatever a drill left running."""
        left = self.alive() + [p.process for p in self.processes if p.process.is_running()]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=10)

    # What must hold

    def lasting(self):
        """Digests of what no crash may change: every object but logs, reports and scratch."""
        lake = self.folder / "lake"
        kept = {}
        for area in ("raw", "processed", "artifacts"):
            for path in (lake / area).rglob("*"):
                if path.is_file() and path.name != "report.html" and "#" not in path.name:
                    kept[str(path.relative_to(lake))] = sha256(path.read_bytes())
        return {name: digest for name, digest in kept.items() if "/channels/" not in name}

    def state(self):
        """What is published, proven and routed."""
        models = self.registry.models
        return {
            "partitions": {
                state.partition: state.model_copy(update={"request": None}).to_json()
                for state in self.registry.partitions.all(NAME)
            },
            "models": sorted(model.version for model in models.all(NAME)),
            "verdicts": sorted(verdict.key for verdict in models.verdicts(NAME)),
            "rollout": self.registry.rollouts.get(NAME).to_json(),
        }

    def check_intact(self, before):
        """I3: everything that was published or proven before is there, byte for byte."""
        now = self.lasting()
        assert before == {name: now.get(name) for name in before}
        for state in self.registry.partitions.all(NAME):
            load_raw(self.platform, state)
            if state.processed is not None:
                load_processed(self.platform, state.processed.path, state.processed.digest)
        self.registry.history.verify(NAME)

    def manifests(self):
        """(the published manifest of each partition, every (key, version) ever in a manifest)."""
        published, ever = {}, set()
        for state in self.registry.partitions.all(NAME):
            manifest = load_raw(self.platform, state)
            if manifest is not None:
                published[state.partition] = manifest
        for path in (self.folder / "lake" / "raw").rglob("_manifests/*/*.json"):
            manifest = RawManifest.model_validate_json(path.read_bytes())
            ever |= {(item.key, item.version) for item in manifest.objects}
        return published, ever

    def check_ledger(self):
        """I1: every object put has one record, and done means in the published manifest."""
        events = list(self.registry.ledger.events(NAME))
        published, ever = self.manifests()

        assert self.puts == {(event.key, event.version) for event in events}
        assert Counter(self.puts) == Counter((event.key, event.version) for event in events)
        assert FINAL >= {event.state for event in events}, self.registry.ledger.counts(NAME)
        done = {(e.partition, e.key): e for e in sorted(events, key=lambda e: e.seq)
                if e.state == "done"}  # fmt: skip
        current = {place: event.version for place, event in done.items()}
        assert current == {
            (partition, item.key): item.version
            for partition, manifest in published.items()
            for item in manifest.objects
        }
        for event in events:
            was_done = (event.key, event.version) in ever
            assert was_done == (event.state == "done"), event
        self._check_processed(published)
        self._check_landing()

    def _check_processed(self, published):
        for state in self.registry.partitions.all(NAME):
            raw = published[state.partition]
            assert state.processed is not None
            assert raw.digest == state.processed_from
            manifest = load_processed(self.platform, state.processed.path, state.processed.digest)
            ids = [row for file in manifest.files
                   for row in read_parquet(self.platform, file)["row_id"]]  # fmt: skip
            assert raw.rows == len(ids)
            assert raw.rows == len(set(ids))

    def _check_landing(self):
        landing = self.platform.settings.landing / NAME
        left = [p for p in landing.rglob("*") if p.is_file() and p.name != ".lock"]
        assert [] == left

    def check_serving(self):
        """I2: each variant of the Rollout serves exactly the bytes that its verdict passed."""
        rollout = self.registry.rollouts.get(NAME)
        for entry in rollout.variants.values():
            verdicts = self.registry.models.verdicts(NAME, entry.model_version)
            assert [True] == [v.passed for v in verdicts if v.key == entry.verdict]
            model = self.registry.models.get(NAME, entry.model_version)
            bytes_of = {name: self.platform.lake.get(f"{model.prefix}/{name}")
                        for name in model.files}  # fmt: skip
            found = {name: sha256(data) for name, data in bytes_of.items()}
            assert entry.model_version == version_of(found)
            state = self.endpoints.describe(entry.endpoint)
            assert "InService" == state.state, state
            assert entry.model_version == state.model_version
            assert found["model.tar.gz"] == state.detail["archive_sha256"]
            proven = require_once_proven(self.platform, self.pipeline, entry.model_version)
            assert answer_golden(self.platform, entry.endpoint, proven) > 0
        assert len(rollout.variants) == len(self.servers())
        if rollout.champion is not None:
            assert rollout.champion == rollout.variants[rollout.live].model_version
        self.registry.history.verify(NAME)
