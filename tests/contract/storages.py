"""A registry's storage on each platform: any number of clients and processes may use one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from emulators import clients_of

from ml_control.aws.client import Clients
from ml_control.aws.registry import DynamoTables
from ml_control.aws.schema import KEYS
from ml_control.lake import Lake
from ml_control.local.registry import SqliteTables
from ml_control.settings import AwsSettings
from ml_control.testing.account import make_tables


class Storage:
    """One platform's storage: any number of clients and processes may use it."""

    page = 1000  # items of a page

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
        self.processes.append(started(program))
        return self.processes[-1]

    def remove(self, table: str, pk: str, sk: str) -> None:
        """What an attacker or an accident does, and no client can: remove an item."""
        with closing(sqlite3.connect(self.place)) as connection, connection:
            gone = connection.execute(f'DELETE FROM "{table}" WHERE pk = ? AND sk = ?', (pk, sk))
            assert 1 == gone.rowcount

    def end(self) -> None:
        """Close what was opened and end what was started."""
        end(self.processes)
        for client in self.clients:
            client.close()


class DynamoStorage:
    """The same in DynamoDB tables on moto, with the lake in a folder."""

    page = 100  # moto takes a millisecond for each item that it tells

    def __init__(self, settings: AwsSettings, lake: Path) -> None:
        self.settings = settings
        self.lake = lake
        self.processes: list[subprocess.Popen[str]] = []
        make_tables(self.clients())

    def client(self) -> DynamoTables:
        """A client of its own, with connections of its own."""
        return DynamoTables(self.clients(), Lake.local(self.lake))

    def clients(self) -> Clients:
        """boto3 clients of their own."""
        return clients_of(self.settings)

    def process(self, body: str) -> subprocess.Popen[str]:
        """A process that runs ``body`` with its own client as ``tables``."""
        program = (
            "import sys\nfrom pathlib import Path\n"
            "from ml_control.aws.client import Clients\n"
            "from ml_control.aws.registry import DynamoTables\n"
            "from ml_control.lake import Lake\n"
            "from ml_control.settings import AwsSettings\n"
            "from ml_control.ports import Check, Item, Put\n"
            f"settings = AwsSettings.model_validate_json({self.settings.model_dump_json()!r})\n"
            f"lake = Lake.local(Path({str(self.lake)!r}))\n"
            f"tables = DynamoTables(Clients(settings), lake)\n{body}"
        )
        self.processes.append(started(program))
        return self.processes[-1]

    def remove(self, table: str, pk: str, sk: str) -> None:
        """What an attacker or an accident does, and no client can: remove an item."""
        gone = (
            self.clients()
            .client("dynamodb")
            .delete_item(
                TableName=self.settings.table(table),
                Key={name: {"S": value} for name, value in zip(KEYS[table], (pk, sk), strict=True)},
                ReturnValues="ALL_OLD",
            )
        )
        assert gone["Attributes"]

    def end(self) -> None:
        """End what was started."""
        end(self.processes)


def started(program: str) -> subprocess.Popen[str]:
    """A Python process that is spoken with line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(processes: list[subprocess.Popen[str]]) -> None:
    """Kill what still runs."""
    for process in processes:
        if process.poll() is None:
            process.kill()
        with suppress(BrokenPipeError):  # it had not read what it was told
            process.communicate()
