"""Storage and arrivals on each platform, for suites that always use two clients at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulators import credentials, fresh_settings
from endpoint_models import Model, servers
from storages import DynamoStorage, Storage

from ml_control.lake import Lake
from ml_control.local.endpoints import LocalEndpoints
from ml_control.local.notifications import LocalNotifications
from ml_control.local.prediction_log import SqlitePredictionLog
from ml_control.registry import Registry

PIPELINE = "flowers"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Place:
    """A landing folder and its lake, with any number of clients."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "landing" / PIPELINE
        self.folder.mkdir(parents=True)
        self.lake = Lake.local(home / "lake")

    def client(self) -> LocalNotifications:
        return LocalNotifications(self.home / "landing", self.lake)

    def put(self, name: str, data: bytes = b"data", at: float = 1_780_000_000.0) -> bytes:
        """Put a file as a person does: written elsewhere, then renamed into its place."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.home / "draft"
        draft.write_bytes(data)
        os.utime(draft, (at, at))
        draft.rename(path)
        return data

    def tick(self) -> None:
        """Wait until the file system's clock, which orders the arrivals, has moved on."""
        probe = self.home / "probe"
        probe.touch()
        first = probe.stat().st_ctime_ns
        while probe.stat().st_ctime_ns == first:
            probe.touch()

    def left(self) -> list[str]:
        """Files in the landing folder, beside the lock and what was refused."""
        files = (path for path in self.folder.rglob("*") if not path.is_dir())
        found = (path.relative_to(self.folder).as_posix() for path in files)
        return sorted(n for n in found if n != ".lock" and not n.startswith(".refused/"))

    def refused(self) -> list[str]:
        """Names of the files that were set aside."""
        return sorted(path.name for path in self.folder.glob(".refused/*/*"))

    def process(self, body: str) -> subprocess.Popen[str]:
        """A process with its own client, as ``source``."""
        program = (
            "import sys\nfrom pathlib import Path\nfrom ml_control.lake import Lake\n"
            "from ml_control.local.notifications import LocalNotifications\n"
            f"home = Path({str(self.home)!r})\n"
            "source = LocalNotifications(home / 'landing', Lake.local(home / 'lake'))\n" + body
        )
        return subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


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


@pytest.fixture(params=["local"])
def place(request, tmp_path):
    """Each platform's place of arrivals; today the local one."""
    return Place(tmp_path)


@pytest.fixture(scope="session")
def one():
    """A model."""
    return Model(1, "v1")


@pytest.fixture(scope="session")
def another():
    """Another model over the same features."""
    return Model(2, "v2")


@pytest.fixture(params=["local"])
def clients(request, tmp_path):
    """Two clients of one platform; today the local one."""
    first, second = LocalEndpoints(tmp_path / "endpoints"), LocalEndpoints(tmp_path / "endpoints")
    yield first, second
    for name in first.names():
        first.stop(name)
    assert servers(tmp_path) == []


@pytest.fixture
def logs(tmp_path):
    """Two clients of one log."""
    clients = tuple(SqlitePredictionLog(tmp_path / "predictions.db") for _ in range(2))
    yield clients
    for client in clients:
        client.close()
