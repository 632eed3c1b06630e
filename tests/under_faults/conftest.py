"""The contract suites' places and clients, with faults in every port and callers that ask again."""

from __future__ import annotations

import pytest
from arriving import Place
from failing import SEEDS, plan_of, wrapped
from log_places import LocalLogs
from storages import Storage
from suites import parts

contract = parts()
clock, registries = contract.clock, contract.registries
one, another = contract.one, contract.another


@pytest.fixture(params=SEEDS)
def plan(request):
    """What fails in this test."""
    return plan_of(request.param)


@pytest.fixture
def storage(tmp_path, plan):
    """A storage whose clients fail."""

    class Failing(Storage):
        def client(self):
            return wrapped(super().client(), plan, "tables")

    storage = Failing(tmp_path / "registry.db")
    yield storage
    storage.end()


@pytest.fixture
def two(storage):
    """Two clients of one storage."""
    return storage.client(), storage.client()


@pytest.fixture
def place(tmp_path, plan):
    """A place of arrivals whose clients fail."""

    class Failing(Place):
        def client(self):
            return wrapped(super().client(), plan, "notifications")

    return Failing(tmp_path)


@pytest.fixture
def log_place(tmp_path, plan):
    """A place of the log whose clients fail."""

    class Failing(LocalLogs):
        def client(self, **options):
            return wrapped(super().client(**options), plan, "log")

    place = Failing(tmp_path)
    yield place
    place.end()


logs, local_log = contract.logs, contract.local_log


@pytest.fixture
def local_only():
    """These are the local adapters."""
