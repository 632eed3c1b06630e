"""A whole pipeline while one call in five of every port fails: it only takes longer."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
from drilling import DAYS, NAME, Home, write_pipeline
from failing import plan_of

from ml_control.errors import Conflict, Retryable
from ml_control.local.anchors import LocalAnchors
from ml_control.registry import Registry
from ml_control.services.arrivals import intake, requests
from ml_control.services.data import dataset
from ml_control.services.models import training
from ml_control.services.releases import deployment
from ml_control.testing.faults import faulty
from ml_control.testing.persistent import persistent
from ml_control.testing.samples import write_tumours

RATES = {"before": 0.08, "after": 0.08, "throttle": 0.02, "delay": 0.015, "hang": 0.005}
SDK_TRIES = 4  # of one call by the client beneath a service, as boto3's
TRIES = 200


def failing(platform, plan):
    """A platform of which every port fails; tables and lake, which a service calls a hundred
    times, are called through a client that tries a few times, as AWS's are.
    """

    def client(port, name):
        return persistent(faulty(port, plan, name), attempts=SDK_TRIES)

    home = platform.settings.home
    return replace(
        platform,
        lake=client(platform.lake, "lake"),
        registry=Registry(
            client(platform.registry.tables, "tables"),
            lease_seconds=platform.settings.lease_seconds,
            anchors=faulty(LocalAnchors(home / "logs" / "history.anchors"), plan, "anchors"),
        ),
        **{
            name: faulty(getattr(platform, name), plan, name)
            for name in ("notifications", "trainer", "endpoints", "alerts", "log", "stream")
        },
    )


def quiet(_):
    """Progress is of no interest here."""


def ingest(platform, pipeline, run):
    """Publish every partition that has something to do."""
    for partition in sorted(requests.partitions_with_work(platform, pipeline)):
        dataset.admit(platform, pipeline, partition, run)
        dataset.process(platform, pipeline, partition, run)


STEPS = {  # what the sensors start, one after the other
    "take in": lambda platform, pipeline, run: intake.take_in(platform, pipeline, settle=0.0),
    "ingest": ingest,
    "train": lambda *of: training.train(*of, quiet),
    "deploy": lambda *of: deployment.deploy(*of, quiet),
    "route": lambda *of: deployment.route(*of, quiet),
}


def drive(platform, pipeline):
    """Each step again until it comes to its end; the refusals on the way, by step and kind."""
    refusals = Counter()
    for name, step in STEPS.items():
        for number in range(TRIES):
            try:
                step(platform, pipeline, f"{name} {number}")
                break
            except (Retryable, Conflict) as error:
                refusals[name, error.kind] += 1
                if isinstance(error, Conflict):  # a lease that could not be given back runs out
                    time.sleep(0.1)
        else:
            raise AssertionError(f"not done in {TRIES} tries: {refusals}")
    return refusals


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """The folder of the pipeline."""
    folder = tmp_path_factory.mktemp("pipelines")
    write_pipeline(folder)
    return folder


@contextmanager
def home_in(folder, pipelines):
    """A home in which two days of tumours have landed; nothing of it is left behind."""
    home = Home(folder / "home", pipelines)
    files = write_tumours(folder / "files", DAYS[:2])
    for day, file in zip(DAYS, files, strict=False):
        home.land(f"dt={day}/tumours.csv", file.read_bytes())
    yield home
    for name in home.endpoints.names():
        home.endpoints.stop(name)


def outcome(home):
    """What the registry says at the end, without times, runs and numbers of tries."""
    models = home.registry.models.all(NAME)
    rollout = home.registry.rollouts.get(NAME)
    return {
        "partitions": [
            (state.partition, state.raw.digest, state.processed.digest)
            for state in home.registry.partitions.all(NAME)
        ],
        "models": [model.version for model in models],
        "events": sorted((e.key, e.version, e.state) for e in home.registry.ledger.events(NAME)),
        "passed": {v.model_version for v in home.registry.models.verdicts(NAME) if v.passed},
        "live": (rollout.live, rollout.champion, rollout.state),
        "weights": dict(rollout.weights),
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory, pipelines):
    """How it ends when nothing fails."""
    with home_in(tmp_path_factory.mktemp("calm"), pipelines) as home:
        assert {} == drive(home.platform, home.pipeline)
        return outcome(home)


@pytest.mark.parametrize("seed", ["1", "2", "random"])
def test_a_pipeline_comes_to_the_same_end_whatever_fails(
    tmp_path, pipelines, expected, seed, monkeypatch
):
    """Ingested, trained, deployed and routed with faults in every port: the same manifests, the
    one model version, the same verdict and Rollout as without; every object has its one record,
    and what serves is proven.
    """
    plan = plan_of(seed, RATES)
    began = time.monotonic()
    with home_in(tmp_path, pipelines) as home:
        monkeypatch.setenv("ML_CONTROL_HOME", str(home.folder))  # by which its servers are known
        refusals = drive(failing(home.platform, plan), home.pipeline)
        took = time.monotonic() - began
        print(f"{sum(plan.calls.values())} calls, {plan.counts}, {dict(refusals)}, {took:.1f} s")

        assert expected == outcome(home)
        assert 1 == len(expected["models"])
        assert sum(plan.counts.values()) > 50
        home.check_ledger()
        home.check_serving()
