"""Places of arrivals on each platform: put objects as people do, read them with any clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from emulators import clients_of

from ml_control.aws.lake import open_lake
from ml_control.aws.notifications import SqsNotifications
from ml_control.aws.registry import DynamoTables
from ml_control.lake import Lake, pinned
from ml_control.local.notifications import LocalNotifications

PIPELINE = "flowers"


class Place:
    """A landing folder and its lake, with any number of clients."""

    many = 300  # objects to put where it takes many

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

    @property
    def bucket(self) -> str:
        """What notices name as their bucket."""
        return "raw"

    def paths(self) -> list[str]:
        """The lake keys of every object that came, sorted."""
        return list(self.lake.list(f"raw/{PIPELINE}"))

    def again(self) -> None:
        """What was received and not acknowledged is received again at once."""

    def remove(self, path: str) -> None:
        """What an accident does: the bytes behind a path are gone."""
        (self.home / "lake" / path).unlink()

    def now(self, at: float) -> float:
        """When a file with this time of its own counts as put."""
        return at


class Bucket:
    """The raw bucket of an account and its queue, with any number of clients."""

    many = 60

    def __init__(self, home: Path, account) -> None:
        self.home = home
        self.settings = account
        self.clients = clients_of(account)
        self.s3, self.sqs = self.clients.client("s3"), self.clients.client("sqs")
        self.lake = open_lake(self.clients)
        self.tables = DynamoTables(self.clients, self.lake)
        self.bucket = account.bucket("raw")

    def client(self, **more) -> SqsNotifications:
        clients = clients_of(self.settings)
        options = {"wait_seconds": 0, "lease_seconds": 1.5, "visibility_seconds": 1, **more}
        lake = open_lake(clients)
        return SqsNotifications(clients, lake, DynamoTables(clients, lake), **options)

    def again(self) -> None:
        """Wait until what was received and not acknowledged is received again."""
        time.sleep(1.1)

    def put(self, name: str, data: bytes = b"data", at: float = 0.0) -> bytes:
        """Put an object below the pipeline's prefix; S3 keeps its own time."""
        self.put_key(f"{PIPELINE}/{name}", data)
        return data

    def put_key(self, key: str, data: bytes = b"data") -> str:
        """Put an object; the id of its version."""
        answer = self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        return answer["VersionId"]

    def send(self, body, queue: str = "") -> None:
        """A message of any content in the arrivals queue."""
        text = body if isinstance(body, str) else json.dumps(body)
        self.sqs.send_message(QueueUrl=queue or self.settings.queue_url, MessageBody=text)

    def tick(self) -> None:
        """Nothing to wait for: the versions of a key are in order by themselves."""

    def left(self) -> list[str]:
        """Messages that are in the queue, seen or not."""
        found = self.sqs.get_queue_attributes(
            QueueUrl=self.settings.queue_url, AttributeNames=["All"]
        )["Attributes"]
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return ["a message"] * sum(int(found[name]) for name in names)

    def versions(self) -> list[tuple[str, str]]:
        """(key, version id) of every version in the bucket, sorted."""
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket)
        return sorted(
            (item["Key"], item["VersionId"]) for page in pages for item in page.get("Versions", ())
        )

    def paths(self) -> list[str]:
        """The lake keys of every version that was put, sorted."""
        return sorted(pinned(f"raw/{key}", version) for key, version in self.versions())

    def remove(self, path: str) -> None:
        """What an accident does: the version behind a path is gone."""
        key, _, version = path.removeprefix("raw/").rpartition("#v=")
        self.s3.delete_object(Bucket=self.bucket, Key=key, VersionId=version)

    def now(self, at: float) -> float:
        """S3 counts from when it took an object."""
        return time.time()

    def process(self, body: str) -> subprocess.Popen[str]:
        """A process with its own client, as ``source``."""
        program = (
            "import sys\nfrom pathlib import Path\nfrom ml_control.settings import AwsSettings\n"
            "from ml_control.aws.client import Clients\nfrom ml_control.aws.lake import open_lake\n"
            "from ml_control.aws.notifications import SqsNotifications\n"
            "from ml_control.aws.registry import DynamoTables\n"
            f"home = Path({str(self.home)!r})\n"
            f"told = {self.settings.model_dump_json()!r}\n"
            "clients = Clients(AwsSettings.model_validate_json(told))\n"
            "lake = open_lake(clients)\n"
            "source = SqsNotifications(clients, lake, DynamoTables(clients, lake),"
            " wait_seconds=0, lease_seconds=1.5, visibility_seconds=1)\n" + body
        )
        return subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
