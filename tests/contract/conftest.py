"""Storage and arrivals on each platform, for suites that always use two clients at once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from emulators import credentials
from endpoint_models import Model, servers
from log_places import DynamoLogs, LocalLogs

from ml_control.lake import Lake
from ml_control.local.endpoints import LocalEndpoints
from ml_control.local.notifications import LocalNotifications
from ml_control.local.registry import SqliteTables
from ml_control.registry import Registry

PIPELINE = "flowers"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Storage:
    """One platform's storage: any number of clients and processes may use it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.clients: list[SqliteTables] = []
        self.processes: list[subprocess.Popen[str]] = []

    def client(self) -> SqliteTables:
        """A client of its own."""
        self.clients.append(SqliteTables(self.place))
        return self.clients[-1]

    def process(self, body: str) -> subprocess.Popen[str]:
        """A process that runs ``body`` with its own client as ``tables``."""
        program = (
            "import sys\nfrom pathlib import Path\n"
            "from ml_control.local.registry import SqliteTables\n"
            "from ml_control.ports import Check, Item, Put\n"
            f"tables = SqliteTables(Path({str(self.place)!r}))\n{body}"
        )
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return self.processes[-1]

    def remove(self, table: str, pk: str, sk: str) -> None:
        """What an attacker or an accident does, and no client can: remove an item."""
        with closing(sqlite3.connect(self.place)) as connection, connection:
            gone = connection.execute(f'DELETE FROM "{table}" WHERE pk = ? AND sk = ?', (pk, sk))
            assert 1 == gone.rowcount

    def end(self) -> None:
        """Close what was opened and end what was started."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            with suppress(BrokenPipeError):  # it had not read what it was told
                process.communicate()
        for client in self.clients:
            client.close()


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


@pytest.fixture(params=["local"])
def storage(request, tmp_path):
    """Each platform's storage; today the local one."""
    storage = Storage(tmp_path / "registry.db")
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
def local_log(log_place):
    """For what only a file can suffer: skips the other platforms."""
    if not isinstance(log_place, LocalLogs):
        pytest.skip("about the file of the local log")
