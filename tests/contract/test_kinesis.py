"""The stream where only the real Kinesis is difficult: in part, late, resharded, expired."""

from __future__ import annotations

import json
import logging
from collections import Counter

import pytest
from botocore.exceptions import ReadTimeoutError
from kinesis import FakeKinesis, clients_of
from streams import NAME, RETRY, TRIES, Clock, data_of, record

from ml_control.aws.stream import KinesisStream, putting, shards
from ml_control.errors import BadObject, Retryable, Unknown
from ml_control.local.registry import SqliteTables
from ml_control.ports import MAX_STREAM_BYTES, StreamRecord
from ml_control.services.traffic import consumer

HOUR = 3600.0


class Careful(SqliteTables):
    """Takes no more in a transaction than DynamoDB does, where an index value costs two more."""

    def transact(self, writes):
        assert sum(3 if one.item.sk.startswith("record#") else 1 for one in writes) <= 100
        sizes = [len(json.dumps(dict(one.item.body))) for one in writes]
        assert sum(size for size in sizes if size < 390_000) <= 4_000_000  # the others are moved
        super().transact(writes)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def kinesis(clock, monkeypatch):
    monkeypatch.setattr(putting, "_FIRST_WAIT", 0.0)
    return FakeKinesis(2, clock)


@pytest.fixture
def make(kinesis, clock, tmp_path):
    """Makes clients, as many processes would be."""

    def make(**changes):
        options = {"tries": TRIES, "poll_seconds": 0.0, "clock": clock, **changes}
        tables = Careful(tmp_path / "registry.db")
        return KinesisStream(clients_of(kinesis), tables, RETRY, **options)

    return make


def consume(stream, pipeline=NAME, limit=500):
    """Read and settle until nothing is left; the data in order."""
    found = []
    while records := stream.read(pipeline, limit):
        found += records
        stream.settle(pipeline, [one.sequence for one in records], {})
    return found


def test_what_kinesis_fails_is_sent_again_and_no_key_overtakes_itself(kinesis, make):
    """A third of the entries fail, again and again: all get in once, in the order of each key."""
    tried = Counter()

    def refuse(entry):
        tried[entry["Data"]] += 1
        return hash(entry["Data"][-2:]) % 3 == 0 and tried[entry["Data"]] < 3

    kinesis.refuse = refuse
    stream = make()
    given = stream.put([record(f"k{i % 40}", b"%03d" % i) for i in range(600)])

    found = consume(stream)

    assert 600 == len(set(given)) == len(found)
    assert {b"%03d" % i: given[i] for i in range(600)} == {one.data: one.sequence for one in found}
    for key in range(40):
        own = [int(one.data) for one in found if one.key == f"k{key}"]
        assert sorted(own) == own
    assert max(tried.values()) == 3, "nothing that was in is sent again"


def test_a_put_that_cannot_be_finished_says_what_is_in(kinesis, make):
    """Bounded: the error is typed, and whoever puts the others again loses and doubles nothing."""
    kinesis.refuse = lambda entry: entry["Data"].endswith(b"stuck")
    stream = make(patience=0.05)
    records = [record("a", b"1"), record("b", b"stuck"), record("b", b"behind"), record("c", b"4")]

    with pytest.raises(Retryable, match="2 of 4 records are in") as refused:
        stream.put(records)

    put = refused.value.detail["put"]
    assert [True, False, False, True] == [one is not None for one in put]
    assert "ProvisionedThroughputExceededException" in refused.value.reason
    kinesis.refuse = lambda _: False
    stream.put([one for one, number in zip(records, put, strict=True) if number is None])
    assert [b"1", b"4", b"behind", b"stuck"] == sorted(data_of(consume(stream)))


def test_a_put_that_was_done_while_the_caller_timed_out_is_never_lost(kinesis, make):
    """At least once: it may be there twice, which a request id of its own makes one answer."""
    kinesis.executed_errors = [ReadTimeoutError(endpoint_url="kinesis")]
    stream = make()

    (given,) = stream.put([record("a", b"1")])

    found = stream.read(NAME, 10)
    assert [b"1", b"1"] == data_of(found)
    assert given == found[-1].sequence


def test_requests_stay_within_the_limits(kinesis, make):
    """500 entries and 5 MiB of a request, also with the largest records; the fake checks both."""
    stream = make()
    largest = b"x" * MAX_STREAM_BYTES
    stream.put([record("k" * 256, largest, "p" * 30), *(record(f"{i}", largest) for i in range(7))])
    stream.put([record(f"{i}", b"") for i in range(1201)])

    assert 1209 == len(consume(stream)) + len(consume(stream, "p" * 30))
    with pytest.raises(BadObject):
        stream.put([record("a", largest + b"x")])


def test_pipelines_share_what_is_read(kinesis, make):
    """Ten pipelines that keep up cost the requests of one; each sees its own records only."""
    stream = make()
    names = [f"p{i}" for i in range(10)]
    for name in names:
        stream.read(name, 1)
    stream.put([StreamRecord(name, f"k{i}", name.encode()) for i in range(30) for name in names])
    kinesis.calls.clear()
    slow = make(poll_seconds=60.0)
    for name in names:
        slow.read(name, 1)
    before = kinesis.calls.count("GetRecords")
    for _ in range(3):
        for name in names:
            assert {name.encode()} == set(data_of(slow.read(name, 100)))

    assert 2 >= kinesis.calls.count("GetRecords") - before


def test_a_pipeline_at_rest_keeps_up_with_what_is_kept(kinesis, make, clock):
    """Only foreign records pass for days: its place moves on, so that nothing seems lost, and a
    new process does not read all of it again.
    """
    stream = make()
    for _ in range(10):
        stream.put([record(f"{i}", b"", "other") for i in range(20)])
        assert [] == stream.read(NAME, 10)
        clock.now += 10 * HOUR
        kinesis.expire()
    stream.put([record("a", b"mine")])

    assert [b"mine"] == data_of(make().read(NAME, 10))


def test_what_may_have_expired_unread_is_asked_about(kinesis, make, clock):
    """Reading halts with what is not known and since when; a person lets it go on."""
    first = make()
    first.put([record("a", b"1"), record("b", b"2")])
    consume(first)
    clock.now += 1.0
    first.put([record("a", b"lost"), record("b", b"lost")])
    clock.now += 25 * HOUR
    kinesis.expire()
    later = make()
    later.put([record("a", b"3")])

    for _ in range(2):
        with pytest.raises(Unknown, match="longer than Kinesis keeps") as refused:
            later.read(NAME, 10)
    assert f"stream replay {NAME}" in refused.value.next
    assert 0 == make().replay(NAME)

    assert [b"3"] == data_of(consume(make()))
    assert [] == later.read(NAME, 10)


def test_a_shard_that_is_gone_unread_is_asked_about(kinesis, make, clock):
    """Split, and forgotten by Kinesis before the consumer came back."""
    stream = make()
    stream.put([record(f"{i}", b"1") for i in range(8)])
    records = stream.read(NAME, 3)
    stream.settle(NAME, [one.sequence for one in records], {})
    kinesis.split("shardId-000000000000")
    clock.now += 25 * HOUR
    kinesis.expire(shards=True)
    fresh = make()

    with pytest.raises(Unknown, match="shardId-000000000000"):
        fresh.read(NAME, 10)
    fresh.replay(NAME)
    fresh.put([record(f"{i}", b"new") for i in range(8)])
    assert [b"new"] * 8 == data_of(consume(fresh))


@pytest.mark.parametrize("how", ["split", "merge"])
def test_a_closed_shard_is_finished_before_its_children(kinesis, make, how):
    """Order of each key over a resharding; a failing record of the parent holds up its key alone,
    in the children too.
    """
    stream, other = make(), make()
    early = stream.put([record(f"k{i % 10}", b"%d" % i) for i in range(20)])
    stream.read(NAME, 4)
    if how == "split":
        kinesis.split("shardId-000000000001")
    else:
        kinesis.merge("shardId-000000000000", "shardId-000000000001")
    stream._shards.listed(anew=True)
    stream.put([record(f"k{i % 10}", b"%d" % (20 + i)) for i in range(20)])
    other.settle(NAME, [], {early[0]: "no answer"})

    found = stream.read(NAME, 100)

    assert 36 == len(found)
    assert "k0" not in {one.key for one in found}
    for key in range(1, 10):
        assert [key, key + 10, key + 20, key + 30] == [
            int(one.data) for one in found if one.key == f"k{key}"
        ]
    stream.settle(NAME, [one.sequence for one in found], {})
    assert (4, 1) == (stream.state(NAME).waiting, stream.state(NAME).failing)


def test_a_consumer_learns_of_shards_from_the_one_before_it(kinesis, make):
    """What it knows of the shards is older than the position: they are there, not gone."""
    first, second = make(), make()
    first.put([record(f"{i}", b"1") for i in range(8)])
    assert 8 == len(second.read(NAME, 100))
    kinesis.split("shardId-000000000000")
    assert 8 == len(consume(first))
    first.put([record(f"{i}", b"2") for i in range(8)])
    first.settle(NAME, [one.sequence for one in first.read(NAME, 100)][:7], {})

    assert [b"2"] == data_of(second.read(NAME, 100))
    assert 1 == second.state(NAME).waiting


def test_shards_that_expired_are_forgotten_once(kinesis, make, clock):
    """At rest the shards are not listed again and again for those that are over."""
    stream = make()
    stream.put([record(f"{i}", b"1") for i in range(8)])
    kinesis.split("shardId-000000000000")
    consume(stream)
    clock.now += 23 * HOUR
    assert [] == stream.read(NAME, 10)
    clock.now += 3 * HOUR
    kinesis.expire(shards=True)
    stream._shards.listed(anew=True)
    assert [] == stream.read(NAME, 10)
    kinesis.calls.clear()

    for _ in range(20):
        assert [] == stream.read(NAME, 10)

    assert "ListShards" not in kinesis.calls
    position = SqliteTables.get(stream._tables, "control-ledger", f"stream#{NAME}", "position")
    assert "shardId-000000000000" not in position.body["shards"]


def test_a_throttled_read_gives_what_is_there(kinesis, make):
    """Kinesis answers five reads a second: what is in memory goes on, else it is ``Retryable``."""
    stream = make()
    stream.put([record("a", b"1"), record("a", b"2")])
    assert 2 == len(stream.read(NAME, 10))
    kinesis.errors = ["ProvisionedThroughputExceededException"] * 10

    assert [b"1", b"2"] == data_of(stream.read(NAME, 10))
    kinesis.errors = [None, "ProvisionedThroughputExceededException"]
    with pytest.raises(Retryable, match="ProvisionedThroughput"):
        make().read(NAME, 10)


def test_parked_records_outlive_what_kinesis_keeps(kinesis, make, clock):
    """Hundreds of them in one report, the largest among them: their data is in the registry."""
    stream = make()
    datas = [b"%d" % i for i in range(210)] + [b"x" * MAX_STREAM_BYTES] * 4
    datas += [b"y" * 290_000] * 12
    given = stream.put([record(f"{i}", data) for i, data in enumerate(datas)])
    parked = stream.settle(NAME, [], {}, dict.fromkeys(given, "bad"))
    assert sorted(given) == sorted(parked)
    clock.now += 20 * HOUR
    stream.read(NAME, 1)
    clock.now += 20 * HOUR
    kinesis.expire()

    again = make()
    assert 226 == again.replay(NAME)

    found = again.read(NAME, 500)
    assert sorted(datas) == sorted(data_of(found))
    again.settle(NAME, [one.sequence for one in found], {})
    assert (0, 0) == (again.state(NAME).waiting, again.state(NAME).parked)
    assert [] == make().read(NAME, 500)


def test_one_failing_key_does_not_hold_up_thousands_behind_it(kinesis, make, monkeypatch):
    """And a backlog beyond what memory takes is counted and consumed."""
    monkeypatch.setattr(shards, "_HELD", 50)
    stream = make()
    given = stream.put([record("slow", b"first")])
    stream.put([record(f"k{i}", b"x") for i in range(700)])
    stream.settle(NAME, [], {given[0]: "no answer"})

    assert 701 == stream.state(NAME).waiting
    assert 700 == len(consume(stream, limit=60))
    assert (1, 1) == (stream.state(NAME).waiting, stream.state(NAME).failing)


def test_bytes_of_others_are_passed_and_said(kinesis, make, caplog):
    """Whoever writes to the stream by other means is told once, and nobody waits for it."""
    kinesis.put_records(Records=[{"Data": b'{"record": {}}', "PartitionKey": "a"}] * 3)
    stream = make()
    stream.put([record("a", b"1")])
    with caplog.at_level(logging.WARNING):
        assert [b"1"] == data_of(consume(stream))

    assert 1 == caplog.text.count("was not put by ml-control")


def test_a_halt_is_told_to_people_and_replay_ends_it(home, monkeypatch):
    """The consumer raises an alert with the step that goes on."""
    platform, pipeline = home.platform, home.pipeline()

    def refuse(*_):
        raise Unknown("stream of tumours", "may be gone", "decide")

    monkeypatch.setattr(platform.stream, "read", refuse)
    said = []
    loop = consumer.Consumer(platform, lambda: [pipeline], said.append)
    loop.round()

    assert ["stream-halted"] == [one.kind for one in platform.registry.alerts.open("tumours")]
    monkeypatch.undo()
    consumer.replay(home.platform, "tumours")
    assert [] == home.platform.registry.alerts.open("tumours")
