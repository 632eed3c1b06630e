"""Arrivals through one queue for all pipelines: routed, ordered, parked, called, never lost."""

from __future__ import annotations

import json
from collections import Counter
from urllib.parse import quote_plus

import pytest
from arriving import PIPELINE as P
from arriving import Bucket
from botocore.exceptions import ClientError
from emulators import credentials, fresh_settings

from ml_control.errors import InvalidSpec, PlatformFailed
from ml_control.lake import pinned
from ml_control.testing.account import make_arrivals


@pytest.fixture
def bucket(tmp_path):
    """An account's raw bucket with its queue."""
    with credentials():
        yield Bucket(tmp_path, make_arrivals(fresh_settings()))


@pytest.fixture
def source(bucket):
    """A client that keeps what it received for itself long enough."""
    return bucket.client(visibility_seconds=60)


def drain(bucket):
    """Take away what S3 told of, so that messages can be sent by hand."""
    source = bucket.client(visibility_seconds=60)
    source.acknowledge(source.receive(P, 0.0, 1000))


def event(bucket, key, version="", **item):
    return {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "id": f"id-{key}-{version}",
        "time": "2026-11-24T13:34:53Z",
        "detail": {
            "bucket": {"name": bucket.bucket},
            "object": {
                "key": key,
                "size": 1,
                **({"version-id": version} if version else {}),
                **item,
            },
        },
    }


def calls(bucket):
    """How often each operation of a service is called from now on, by any client."""
    counted: Counter[str] = Counter()

    def seen(model, **_):
        counted[f"{model.service_model.service_name}.{model.name}"] += 1

    for service in ("sqs", "s3"):
        bucket.clients.client(service).meta.events.register("before-call", seen)
    return counted


def test_word_of_another_pipeline_waits_for_it(bucket, source):
    """Whoever reads the queue, each pipeline gets its own objects once, in pages that end."""
    for number in range(25):
        bucket.put_key(f"{('a', 'b', P)[number % 3]}/dt=2026-05-01/{number}.csv")

    mine = source.receive(P, 0.0, 1000)
    source.acknowledge(mine)
    assert [] == bucket.left()
    other = bucket.client()
    found = {name: other.receive(name, 0.0, 1000) for name in ("a", "b")}

    assert [8, 9, 8] == [len(mine), len(found["a"]), len(found["b"])]
    assert found["a"] == other.receive("a", 0.0, 1000)  # until they are acknowledged
    other.acknowledge(found["a"][:3])
    other.acknowledge(found["a"][:3])
    assert found["a"][3:] == source.receive("a", 0.0, 1000)
    for notices in found.values():
        source.acknowledge(notices)
    assert [[], [], []] == [source.receive(name, 0.0, 1000) for name in ("a", "b", P)]


def test_emptied_pages_of_the_inbox_are_used_again(bucket, source):
    """However often the inbox is filled, the registry does not grow."""
    for turn in range(4):
        bucket.put_key(f"a/{turn}.csv")
        source.receive(P, 0.0, 1000)
        source.acknowledge(source.receive("a", 0.0, 1000))

    assert 1 == len(list(bucket.tables.query("control-ledger", "inbox#a")))
    assert [] == list(bucket.tables.query_index("control-ledger", "inbox"))


def test_a_late_acknowledgement_takes_nothing_from_a_page_that_is_used_again(bucket, source):
    """A place in an emptied page is no place in what fills it later."""
    bucket.put_key("a/1.csv")
    source.receive(P, 0.0, 10)
    old = source.receive("a", 0.0, 10)
    source.acknowledge(old)
    bucket.put_key("a/2.csv")
    source.receive(P, 0.0, 10)

    source.acknowledge(old)

    assert ["a/2.csv"] == [notice.key for notice in source.receive("a", 0.0, 10)]


def test_a_name_that_no_pipeline_has_is_told(bucket, source):
    """Objects below an unknown name, and at the top of the bucket, wait and are counted."""
    for key in ("odd#name/1.csv", "odd#name/2.csv", "lost.csv", "a/1.csv"):
        bucket.put_key(key)
    source.receive(P, 0.0, 10)

    strays = source.strays({"a", P})

    assert {"odd%23name": 2, "lost.csv": 1} == {stray.name: stray.objects for stray in strays}
    assert all("there is no pipeline" in stray.reason for stray in strays)
    assert 2 == len(source.receive("odd#name", 0.0, 10))  # should it come to be one


@pytest.mark.parametrize("body", ["no json", {"source": "my.app"}, {"Records": [{}]}])
def test_what_nobody_can_read_is_kept_and_told(bucket, source, body):
    """The message lies in the lake with its reason; the queue goes on without it."""
    bucket.send(body)
    bucket.put("a.csv")

    assert [f"{P}/a.csv"] == [notice.key for notice in source.receive(P, 0.0, 10)]
    (key,) = bucket.lake.list("logs/_arrivals/unreadable")
    kept = json.loads(bucket.lake.get(key))
    assert (body if isinstance(body, str) else json.dumps(body)) == kept["body"]
    assert "no event that is known here" in kept["reason"]
    (stray,) = source.strays({P})
    assert "1 messages of the arrivals queue could not be read" == stray.reason


def test_messages_that_say_nothing_are_deleted(bucket, source):
    """S3's test of the connection, folders' marks and our own manifests."""
    bucket.send({"Event": "s3:TestEvent"})
    bucket.put_key(f"{P}/folder/", b"")
    bucket.lake.put(f"raw/{P}/_manifests/2026-05-01/x.json", b"{}")

    assert [] == source.receive(P, 0.0, 10)
    assert [] == bucket.left()
    assert [] == source.stored(P, "", 10)


def test_keys_of_s3s_own_records_are_decoded_once(bucket, source):
    """Encoded as by AWS, or not, as by some emulators: S3 is asked which of the two there is."""
    keys = [f"{P}/a b+c%20.csv", f"{P}/ä%C3%A4.csv", f"{P}/plain.csv"]
    versions = [bucket.put_key(key, key.encode()) for key in keys]
    drain(bucket)

    for spell in (lambda key: quote_plus(key, safe="/"), str):
        records = [
            {
                "eventName": "ObjectCreated:Put",
                "eventTime": "2026-11-24T13:34:53.123Z",
                "s3": {
                    "bucket": {"name": bucket.bucket},
                    "object": {"key": spell(key), "size": 1, "versionId": version},
                },
            }
            for key, version in zip(keys, versions, strict=True)
        ]
        for each in records:
            bucket.send({"Records": [each]})
        notices = source.receive(P, 0.0, 10)
        source.acknowledge(notices)

        assert {pinned(f"raw/{k}", v) for k, v in zip(keys, versions, strict=True)} == {
            notice.path for notice in notices
        }
        assert sorted(key.encode() for key in keys) == sorted(
            bucket.lake.get(notice.path) for notice in notices
        )


def test_an_event_without_a_version_means_the_one_with_its_etag(bucket, source):
    """What was replaced meanwhile is found by its ETag; what is gone is refused, and told so."""
    first = bucket.put_key(f"{P}/a.csv", b"old")
    etag = bucket.s3.head_object(Bucket=bucket.bucket, Key=f"{P}/a.csv")["ETag"].strip('"')
    bucket.put_key(f"{P}/a.csv", b"new")
    drain(bucket)
    bucket.send(event(bucket, f"{P}/a.csv", etag=etag))
    bucket.send(event(bucket, f"{P}/never.csv", eTag="0" * 32))

    found = {notice.key: notice for notice in source.receive(P, 0.0, 10)}

    assert (first, b"old") == (
        found[f"{P}/a.csv"].version,
        bucket.lake.get(found[f"{P}/a.csv"].path),
    )
    assert "was removed before it was read" == found[f"{P}/never.csv"].refused


def test_versions_of_a_key_come_in_the_order_they_were_put(bucket, source):
    """Told in any order: by the sequencer, and where that says nothing by S3's own list."""
    key = f"{P}/dt=2026-05-01/a.csv"
    versions = [bucket.put_key(key, b"%d" % number) for number in range(4)]
    drain(bucket)
    for sequencers in (["00A", "00B", "00B1", "00C"], ["00A"] * 4, [""] * 4):
        told = list(zip(versions, sequencers, strict=True))
        for version, sequencer in [told[2], told[0], told[3], told[1]]:
            bucket.send(event(bucket, key, version, sequencer=sequencer))
        notices = source.receive(P, 0.0, 10)
        source.acknowledge(notices)

        assert versions == [notice.version for notice in notices]


def test_odd_keys_are_refused_with_the_reason(bucket, source):
    """What can never be read is told as such, under its own name, and does not stop the others."""
    odd = [f"{P}//a.csv", f"{P}/../a.csv", f"{P}/a\tb.csv", f"{P}/{'x' * 900}"]
    for key in [*odd, f"{P}/good.csv"]:
        bucket.put_key(key)

    notices = source.receive(P, 0.0, 10)

    assert {True, False} == {bool(notice.refused) for notice in notices}
    assert [f"{P}/good.csv"] == [notice.key for notice in notices if not notice.refused]
    assert all(len(notice.key) < 300 for notice in notices)
    assert [f"raw/{P}/good.csv"] == [s.path.partition("#")[0] for s in source.stored(P, "", 10)]


def test_ten_events_cost_two_requests(bucket, monkeypatch):
    """Received ten at a time and deleted ten at a time, and no request more."""
    from moto.sqs import models

    always = lambda *_: True  # noqa: E731 - it counts the whole queue for each message
    monkeypatch.setattr(models.SQSBackend, "is_message_valid_based_on_retention_period", always)
    source = bucket.client(visibility_seconds=120)
    source._clients = bucket.clients
    for start in range(0, 200, 10):
        told = [
            event(bucket, f"{P}/dt=2026-05-01/{n}.csv", f"v{n}") for n in range(start, start + 10)
        ]
        bucket.sqs.send_message_batch(
            QueueUrl=bucket.settings.queue_url,
            Entries=[{"Id": str(i), "MessageBody": json.dumps(e)} for i, e in enumerate(told)],
        )
    counted = calls(bucket)
    notices = source.receive(P, 0.0, 200)
    source.acknowledge(notices)

    assert 200 == len({notice.version for notice in notices})
    assert {"sqs.ReceiveMessage": 20, "sqs.DeleteMessageBatch": 20} == counted
    assert [] == bucket.left()


def test_failed_deletes_are_tried_again(bucket, source, monkeypatch):
    """What SQS could not delete for reasons of its own is deleted with the next request."""
    for number in range(3):
        bucket.put(f"{number}.csv")
    notices = source.receive(P, 0.0, 10)
    sqs = source._clients.client("sqs")
    real, asked = sqs.delete_message_batch, []

    def partly(**request):
        asked.append(len(request["Entries"]))
        if len(asked) == 1:
            kept = request["Entries"][-1]
            request = {**request, "Entries": request["Entries"][:-1]}
            answer = real(**request)
            answer["Failed"] = [{"Id": kept["Id"], "SenderFault": False, "Code": "InternalError"}]
            return answer
        return real(**request)

    monkeypatch.setattr(sqs, "delete_message_batch", partly)
    source.acknowledge(notices)

    assert [3, 1] == asked
    assert [] == bucket.left()


def test_what_was_given_up_comes_back_parked(bucket, source):
    """The dead-letter queue goes into the inboxes, marked with the reason, for each pipeline."""
    first = bucket.put_key(f"{P}/a.csv")
    drain(bucket)
    dead = bucket.settings.dead_letter_url
    bucket.send(event(bucket, f"{P}/a.csv", first), dead)
    bucket.send("no json", dead)

    assert [] == source.receive(P, 0.0, 10)  # it goes round by the inbox
    (notice,) = source.receive(P, 0.0, 10)
    source.acknowledge([notice])

    assert first == notice.version
    assert "dead-letter queue" in notice.parked
    assert 1 == len(list(bucket.lake.list("logs/_arrivals/unreadable")))
    assert [] == bucket.client().receive(P, 0.0, 10)


def refusing(source, service, operation, refused):
    """Calls of an operation, from now on, of which AWS refuses those with these numbers."""
    count = iter(range(1000))

    def refuse(**_):
        if next(count) in refused:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, operation)

    events = source._clients.client(service).meta.events
    events.register(f"before-call.{service}.{operation}", refuse)


@pytest.mark.parametrize(
    ("service", "operation", "refused", "found", "left"),
    [
        ("sqs", "ReceiveMessage", {1}, 10, 2),  # the second batch
        ("sqs", "ReceiveMessage", {3}, 12, 0),  # the dead-letter queue
        ("s3", "ListObjectVersions", {4}, 11, 0),  # of one object without a version
    ],
)
def test_what_cannot_be_read_does_not_keep_back_what_could(
    bucket, service, operation, refused, found, left
):
    """What was received is recorded; the rest comes again, and is an error where it is all."""
    drain(bucket)
    for number in range(12):
        bucket.put_key(f"{P}/{number}.csv")
    drain(bucket)
    for number in range(12):
        bucket.send(event(bucket, f"{P}/{number}.csv"))
    source = bucket.client(visibility_seconds=60)
    refusing(source, service, operation, refused)

    assert found == len(source.receive(P, 0.0, 1000))
    assert left == len(bucket.client(visibility_seconds=60).receive(P, 0.0, 1000))
    assert 12 == len(bucket.left())
    refusing(source, "sqs", "ReceiveMessage", range(1000))
    with pytest.raises(PlatformFailed, match="AccessDenied"):
        source.receive(P, 0.0, 1000)


def test_calls_wait_until_they_are_dropped(bucket, source):
    """A schedule's event comes from the bus, is told with one id, and goes when it is dropped."""
    bucket.clients.client("events").put_events(
        Entries=[
            {
                "Source": "ml-control.schedule",
                "DetailType": "train",
                "Detail": json.dumps({"pipeline": P}),
            }
        ]
    )
    assert [] == source.receive("another", 0.0, 10)

    (call,) = source.calls(P)
    assert [call] == bucket.client().calls(P)
    assert (P, []) == (call.pipeline, source.calls("another"))
    source.drop([call])
    source.drop([call])
    assert [] == bucket.client().calls(P) == bucket.left()


def test_a_queue_that_is_not_named_or_not_there_is_told(bucket):
    """Without a queue no word could ever come, which must not look like quiet."""
    for url, kind in (("", InvalidSpec), (bucket.settings.queue_url + "x", PlatformFailed)):
        bucket.settings = bucket.settings.model_copy(update={"queue_url": url})
        with pytest.raises(kind):
            bucket.client().receive(P, 0.0, 10)


def test_listing_goes_on_within_the_versions_of_a_key(bucket, source):
    """Page by page, newest version first, each version once, past manifests and removals."""
    for name in ("a.csv", "_manifests/1/x", "b.csv", "a.csv", "_manifests/2/y", "a.csv"):
        bucket.put(name)
    bucket.s3.delete_object(Bucket=bucket.bucket, Key=f"{P}/b.csv")
    bucket.put_key(f"{P}2/c.csv")

    found, after = [], ""
    while page := source.stored(P, after, 1):
        (item,) = page
        found.append(item)
        after = item.path

    keep = [path for path in bucket.paths() if f"/{P}/" in path and "_manifests" not in path]
    assert keep == sorted(item.path for item in found)
    versions = [item for item in found if item.key == f"{P}/a.csv"]
    assert 3 == len(versions)
    assert source.later(versions[0].path, versions[1].path)
    assert not source.later(versions[2].path, versions[1].path)
    assert found == source.stored(P, "", 1000) or versions[0].at >= versions[1].at
