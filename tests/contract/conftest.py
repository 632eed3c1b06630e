"""Storage and arrivals on each platform, for suites that always use two clients at once."""

from __future__ import annotations

import pytest
from arriving import Bucket, Place
from emulators import credentials, fresh_settings
from endpoint_models import Model, servers
from log_places import DynamoLogs, LocalLogs
from storages import DynamoStorage, Storage

from ml_control.local.endpoints import LocalEndpoints
from ml_control.registry import Registry
from ml_control.testing.account import make_arrivals


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["local", "aws"])
def storage(request, tmp_path):
    """Each platform's storage: a SQLite file, and DynamoDB tables on moto."""
    if request.param == "local":
        storage = Storage(tmp_path / "registry.db")
        yield storage
        storage.end()
        return
    with credentials(), pytest.MonkeyPatch.context() as patched:
        patched.setattr("ml_control.aws.registry.reading._PAGE", DynamoStorage.page)
        storage = DynamoStorage(fresh_settings(), tmp_path / "lake")
        yield storage
        storage.end()


@pytest.fixture
def two(storage):
    """Two clients of one storage."""
    return storage.client(), storage.client()


@pytest.fixture
def clock():
    """A clock that moves when it is told to."""
    return Clock()


@pytest.fixture
def registries(two, clock):
    """Two registries over one storage, with one clock and leases of 30 seconds."""
    return tuple(Registry(tables, lease_seconds=30.0, clock=clock) for tables in two)


def pytest_collection_modifyitems(config, items):
    """Leave out what is about files and processes of this machine where the platform is AWS."""
    elsewhere = [item for item in items if _is_elsewhere(item)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in set(elsewhere)]


def _is_elsewhere(item):
    params = getattr(item, "callspec", None)
    marked = {"local_only", "local_log"} & set(getattr(item, "fixturenames", ()))
    return bool(marked) and params is not None and "aws" in params.params.values()


@pytest.fixture
def local_only():
    """For promises about files and folders, which only the local platform has."""


@pytest.fixture(params=["local", "aws"])
def place(request, tmp_path):
    """Each platform's place of arrivals."""
    if request.param == "local":
        yield Place(tmp_path)
        return
    with credentials():
        yield Bucket(tmp_path, make_arrivals(fresh_settings()))


@pytest.fixture(scope="session")
def one():
    """A model."""
    return Model(1, "v1")


@pytest.fixture(scope="session")
def another():
    """Another model over the same features."""
    return Model(2, "v2")


@pytest.fixture(params=["local", "aws"])
def clients(request, tmp_path):
    """Two clients of one platform's endpoints."""
    if request.param == "aws":
        hosted = request.getfixturevalue("hosted")
        yield hosted.control_plane(), hosted.control_plane()
        return
    first, second = LocalEndpoints(tmp_path / "endpoints"), LocalEndpoints(tmp_path / "endpoints")
    yield first, second
    for name in first.names():
        first.stop(name)
    assert servers(tmp_path) == []


@pytest.fixture(params=["local", "aws"])
def log_place(request, tmp_path):
    """Each platform's prediction log: a file, and a DynamoDB table on moto."""
    with credentials():
        place = DynamoLogs() if request.param == "aws" else LocalLogs(tmp_path)
        yield place
        place.end()


@pytest.fixture
def dynamo():
    """A prediction log in a DynamoDB table of its own."""
    with credentials():
        place = DynamoLogs()
        yield place
        place.end()


@pytest.fixture
def logs(log_place):
    """Two clients of one log."""
    return log_place.client(), log_place.client()


@pytest.fixture
def local_log():
    """For what only the local log's file can suffer."""
