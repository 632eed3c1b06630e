"""A whole pipeline while one call in five of every port fails: it only takes longer."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from drilling import DAYS, NAME, Home, write_pipeline
from driving import drive, outcome
from failing import plan_of

from ml_control.local.anchors import LocalAnchors
from ml_control.registry import Registry
from ml_control.testing.faults import faulty
from ml_control.testing.persistent import persistent
from ml_control.testing.samples import write_tumours

RATES = {"before": 0.08, "after": 0.08, "throttle": 0.02, "delay": 0.015, "hang": 0.005}
SDK_TRIES = 4  # of one call by the client beneath a service, as boto3's


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


@pytest.fixture(scope="module")
def expected(tmp_path_factory, pipelines):
    """How it ends when nothing fails."""
    with home_in(tmp_path_factory.mktemp("calm"), pipelines) as home:
        assert {} == drive(home.platform, home.pipeline)
        return outcome(home.registry, NAME)


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

        assert expected == outcome(home.registry, NAME)
        assert 1 == len(expected["models"])
        assert sum(plan.counts.values()) > 50
        home.check_ledger()
        home.check_serving()
