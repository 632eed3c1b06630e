"""Each platform's stream, for the suites of ``ports.Stream``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from emulators import credentials, fresh_settings

from ml_control.aws.client import Clients
from ml_control.aws.stream import KinesisStream
from ml_control.local.registry import SqliteTables
from ml_control.local.stream import SqliteStream
from ml_control.ports import StreamRecord

NAME = "shop"
TRIES, RETRY = 3, 1.0


class Clock:
    """UTC seconds that move when they are told to."""

    def __init__(self):
        self.now = 1_780_000_000.0

    def __call__(self):
        return self.now


def record(key, data=b"{}", pipeline=NAME):
    return StreamRecord(pipeline, key, data)


def data_of(records):
    return [one.data for one in records]


class Local:
    """The stream of this machine, in a folder."""

    def __init__(self, root, clock):
        self.root, self.clock = root, clock
        self.program = (
            "from pathlib import Path\nfrom ml_control.local.stream import SqliteStream\n"
            f"stream = SqliteStream(Path({str(root)!r}))\n"
        )

    def client(self, clock=None):
        return SqliteStream(self.root, TRIES, RETRY, clock or self.clock)

    def end(self):
        """Nothing is left running."""


class Aws:
    """Kinesis on an emulator: an account's own stream, of one shard so that all has one order."""

    lease = 2.0

    def __init__(self, root, clock, shards=1):
        self.clock, self.folder = clock, tempfile.TemporaryDirectory()
        self.registry = Path(self.folder.name) / "registry.db"
        self.entered = credentials()
        self.entered.__enter__()
        self.settings = fresh_settings()
        self.clients = Clients(self.settings)  # what two clients share is not in boto3's
        self.clients.client("kinesis").create_stream(
            StreamName=self.settings.stream_name, ShardCount=shards
        )
        self.program = (
            "from pathlib import Path\nfrom ml_control.aws.client import Clients\n"
            "from ml_control.aws.stream import KinesisStream\n"
            "from ml_control.local.registry import SqliteTables\n"
            "from ml_control.settings import AwsSettings\n"
            f"settings = AwsSettings.model_validate_json({self.settings.model_dump_json()!r})\n"
            f"tables = SqliteTables(Path({str(self.registry)!r}))\n"
            f"stream = KinesisStream(Clients(settings), tables, lease_seconds={self.lease})\n"
        )

    def client(self, clock=None):
        return KinesisStream(
            self.clients, SqliteTables(self.registry), RETRY, tries=TRIES,
            lease_seconds=self.lease, poll_seconds=0.0, clock=clock or self.clock,
        )  # fmt: skip

    def end(self):
        self.entered.__exit__(None, None, None)
        self.folder.cleanup()
