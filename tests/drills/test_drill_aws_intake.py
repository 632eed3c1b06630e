"""Arrivals on AWS in trouble: at the end every version that was put is accounted for."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contract"))
from arriving import Bucket
from emulators import credentials, fresh_settings

from ml_control.core.digests import sha256
from ml_control.core.records import RawManifest
from ml_control.errors import Retryable
from ml_control.services.arrivals.intake import ingest_files, take_in
from ml_control.services.arrivals.requests import partitions_with_work, plan, replay
from ml_control.services.arrivals.sweep import sweep
from ml_control.services.data.dataset import admit
from ml_control.services.models.retraining import take_calls
from ml_control.testing.account import make_arrivals
from ml_control.testing.samples import write_tumours

P, DAY = "tumours", "2024-03-04"
SEED = 20261124


class World:
    """A home whose raw data lies in a bucket."""

    def __init__(self, home) -> None:
        home.edit("  format: csv", "  format: csv\n    quiet: 0 s")
        self.home, self.pipeline = home, home.pipeline()
        self.bucket = Bucket(home.path, make_arrivals(fresh_settings()))
        self.platform = self.opened()
        self.registry, self.ahead = self.platform.registry, 0.0
        text = write_tumours(home.root / "staging", (DAY,))[0].read_text().splitlines()
        self.header, self.rows = text[0], text[1:]

    def opened(self):
        """Another control plane on the same home and account."""
        source = self.bucket.client(visibility_seconds=1)
        return replace(self.home.platform, lake=self.bucket.lake, notifications=source)

    def data(self, number: int) -> bytes:
        """A file of two rows, for each number another one."""
        return "\n".join([self.header, *self.rows[2 * number : 2 * number + 2], ""]).encode()

    def put(self, number: int, name: str = "a.csv") -> str:
        """Put it; its version."""
        return self.bucket.put_key(f"{P}/dt={DAY}/{name}", self.data(number))

    def take_in(self):
        """Intake until nothing comes."""
        while take_in(self.platform, self.pipeline).seen:
            pass

    def ingest(self):
        """A run of each partition with work."""
        for partition in sorted(partitions_with_work(self.platform, self.pipeline)):
            admit(self.platform, self.pipeline, partition, "run")

    def events(self):
        """(version, state) of every event."""
        return {e.version: e.state for e in self.registry.ledger.events(P)}

    def messages(self) -> list[str]:
        """All messages of the queue, taken away."""
        sqs, url, found = self.bucket.sqs, self.bucket.settings.queue_url, []
        while batch := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                found.append(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def check(self, **expected: int) -> None:
        """Every version that was put is in the ledger, once, and ended; of each key the one that
        was put last is in the manifest, with the digest of its bytes.
        """
        put = {pair for pair in self.bucket.versions() if "/_manifests/" not in pair[0]}
        events = list(self.registry.ledger.events(P))
        assert put == {(e.key, e.version) for e in events}
        assert len(put) == len(events)
        counts = {s: n for s, n in self.registry.ledger.counts(P).items() if n}
        assert expected == counts if expected else not {"pending", "claimed"} & set(counts)
        raw = self.registry.partitions.get(P, DAY).raw
        manifest = RawManifest.model_validate_json(self.bucket.lake.get(raw.path))
        listed = self.bucket.s3.list_object_versions(
            Bucket=self.bucket.bucket, Prefix=f"{P}/dt={DAY}/"
        )["Versions"]
        last: dict[str, str] = {}
        for item in listed:  # the newest first
            last.setdefault(item["Key"], item["VersionId"])
        assert last == {o.key: o.version for o in manifest.objects}
        for item in manifest.objects:
            assert item.digest == sha256(self.bucket.lake.get(item.path))


@pytest.fixture
def world(home):
    """A fresh home on a fresh account."""
    with credentials():
        yield World(home)


def test_objects_whose_events_were_lost_are_swept(world):
    """The rule was off for a while: the sweep finds what was put, older versions too."""
    events, rule = world.bucket.clients.client("events"), world.bucket.settings.name("arrivals")
    world.put(0)
    events.disable_rule(Name=rule)
    for number in (1, 2):
        world.put(number)
        world.put(number, f"{number}.csv")
    world.messages()  # also the first one's word is lost
    events.enable_rule(Name=rule)
    world.put(3, "b.csv")

    world.take_in()
    world.registry.clock = lambda: time.time() + 1000
    while sweep(world.platform, world.pipeline).looked or world.registry.sweeps.get(P)[0].under_way:
        pass
    world.ingest()

    world.check()
    assert 4 == len(RawManifest.model_validate_json(
        world.bucket.lake.get(world.registry.partitions.get(P, DAY).raw.path)
    ).objects)  # fmt: skip
    (alert,) = [a for a in world.registry.alerts.open(P) if a.kind == "found"]
    assert "the ledger did not know" in alert.reason


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_doubled_reordered_and_delayed_events_change_nothing(world, seed):
    """However they are shuffled over the ticks, with runs in between, the last put is current."""
    chance = random.Random(seed)
    for number in range(9):
        world.put(number, f"{number % 2}.csv")
    told = [body for body in world.messages() for _ in range(chance.choice((1, 1, 2)))]
    chance.shuffle(told)
    while told:
        for body in [told.pop() for _ in range(min(len(told), chance.randrange(1, 5)))]:
            world.bucket.send(body)
        world.take_in()
        if chance.random() < 0.5:
            world.ingest()
    world.ingest()

    world.check()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_killed_around_the_ledgers_write_loses_nothing(world, when):
    """Killed between receiving and recording, or between recording and deleting: it comes again,
    once its lease and the visibility of the messages ran out.
    """
    for number in range(3):
        world.put(number, f"{number}.csv")
    program = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).resolve().parents[1] / d) for d in ("", "contract")]!r}
from pathlib import Path
from conftest import Home
from dataclasses import replace
from arriving import clients_of
from ml_control.aws.lake import open_lake
from ml_control.aws.notifications import SqsNotifications
from ml_control.local.registry import SqliteTables
from ml_control.settings import AwsSettings
from ml_control.services.arrivals.intake import take_in
home = Home(Path({str(world.home.root)!r}))
clients = clients_of(AwsSettings.model_validate_json({world.bucket.settings.model_dump_json()!r}))
lake = open_lake(clients)
source = SqsNotifications(clients, lake, SqliteTables(home.path / "registry.db"),
                          wait_seconds=0, lease_seconds=1.5, visibility_seconds=1)
platform = replace(home.platform, lake=lake, notifications=source)
record = platform.registry.ledger.record
def dying(*args, **named):
    if {when!r} == "after":
        record(*args, **named)
    os._exit(9)
platform.registry.ledger.record = dying
take_in(platform, home.pipeline())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    assert 9 == done.returncode
    assert (3 if when == "after" else 0) == len(world.events())

    time.sleep(1.6)
    world.take_in()
    world.ingest()

    world.check(done=3)
    world.take_in()  # also S3's word of the manifest that the run put
    assert [] == world.bucket.left()


def test_an_object_that_is_replaced_before_it_is_read_is_read_as_it_was(world):
    """The pinned version is taken; its replacement is another event, and a removal takes nothing
    that was put away.
    """
    first = world.put(0)
    world.take_in()
    second = world.put(1)
    world.bucket.s3.delete_object(Bucket=world.bucket.bucket, Key=f"{P}/dt={DAY}/a.csv")
    world.ingest()

    raw = world.registry.partitions.get(P, DAY).raw
    (item,) = RawManifest.model_validate_json(world.bucket.lake.get(raw.path)).objects
    assert (first, sha256(world.data(0))) == (item.version, item.digest)
    world.take_in()
    world.ingest()
    assert {first: "done", second: "done"} == world.events()
    world.check()


def test_a_version_that_was_removed_before_it_was_read_is_parked_and_told(world, monkeypatch):
    """It is tried again, then a person is told; the other objects of the partition are taken."""
    monkeypatch.setattr(world.registry, "clock", lambda: time.time() + world.ahead)
    gone, kept = world.put(0), world.put(1, "b.csv")
    world.take_in()
    world.bucket.remove(f"raw/{P}/dt={DAY}/a.csv#v={gone}")
    for _ in range(12):
        wanted = plan(world.platform, world.pipeline, in_flight=set(), limit=5).wanted
        for each in wanted:
            admit(world.platform, world.pipeline, each.partition, "run")
        world.ahead += 400

    assert {gone: "parked", kept: "done"} == world.events()
    (alert,) = [a for a in world.registry.alerts.open(P) if a.kind == "parked"]
    assert "1 objects were parked" in alert.reason


def test_what_sqs_gave_up_is_parked_until_a_person_asks(world):
    """A message that nobody could record goes by the dead-letter queue into the ledger."""
    version = world.put(0)
    (body,) = world.messages()
    world.bucket.send(body, world.bucket.settings.dead_letter_url)
    world.put(1, "b.csv")
    world.take_in()
    world.take_in()

    assert "parked" == world.events()[version]
    (alert,) = [a for a in world.registry.alerts.open(P) if a.kind == "parked"]
    assert "dead-letter queue" in alert.reason
    assert {DAY} == replay(world.platform, world.pipeline)
    world.ingest()
    world.check(done=2)


def test_a_throttled_queue_only_takes_longer(world):
    """With three of ten requests refused, every object arrives, and refusals are Retryable."""
    from botocore.awsrequest import AWSResponse

    chance, refused = random.Random(SEED), 0

    def throttled(request, **_):
        nonlocal refused
        if chance.random() >= 0.3:
            return None
        refused += 1
        body = io.BytesIO(json.dumps({"__type": "RequestThrottled", "message": "slow"}).encode())
        body.stream = lambda *_, **__: iter([body.read()])
        return AWSResponse(request.url, 400, {"Content-Type": "application/x-amz-json-1.0"}, body)

    for number in range(12):
        world.put(number, f"{number}.csv")
    told = world.bucket.settings
    world.bucket.settings = told.model_copy(update={"max_attempts": 2})
    platform = world.opened()
    sqs = platform.notifications._clients.client("sqs")
    sqs.meta.events.register("before-send.sqs", throttled)
    world.platform = platform
    reasons: set[str] = set()
    for _ in range(40):
        try:
            take_in(platform, world.pipeline)
        except Retryable as error:
            reasons.add(error.reason.partition(":")[0])
        if len(world.events()) == 12 and not world.bucket.left():
            break
    world.ingest()

    assert refused, f"seed {SEED}"
    assert reasons <= {"ReceiveMessage", "DeleteMessageBatch"}
    world.check(done=12)


def test_a_file_that_is_ingested_is_one_object_with_its_own_event(world, tmp_path):
    """What S3 tells of our own upload is the version that the ledger has already."""
    file = tmp_path / f"dt={DAY}" / "mine.csv"
    file.parent.mkdir()
    file.write_bytes(world.data(0))
    assert 1 == ingest_files(world.platform, world.pipeline, [file]).recorded
    world.take_in()
    world.ingest()
    file.write_bytes(world.data(1))
    assert 1 == ingest_files(world.platform, world.pipeline, [file]).recorded
    world.take_in()
    world.ingest()

    world.check(done=2)


def test_a_schedules_event_asks_for_one_training_whoever_handles_it(world):
    """Delivered twice and to two control planes, it is one trigger; the next event is another."""
    said = {"source": "ml-control.schedule", "id": "e1", "detail": {"pipeline": P}}
    for _ in range(2):
        world.bucket.send(said)
    other = world.opened()
    take_in(other, world.pipeline)
    calls = other.notifications.calls(P)

    assert ["e1", "e1"] == [call.id for call in calls]
    assert [1, 0] == [take_calls(p, world.pipeline) for p in (other, world.platform)]
    (trigger,) = world.registry.models.training(P).triggers
    assert ("call", "e1", 0) == (trigger.kind, trigger.subject, trigger.answering)
    world.bucket.send(said)  # a duplicate that comes late
    world.bucket.send({**said, "id": "e2"})
    take_in(world.platform, world.pipeline)
    assert 1 == take_calls(world.platform, world.pipeline)
    assert [trigger] == list(
        world.registry.models.training(P).triggers
    )  # one training answers both
