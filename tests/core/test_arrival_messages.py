"""What a message of the arrivals queue says, in every shape in which it may come."""

from __future__ import annotations

import json
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_control.aws.messages import counts, read, unusable

BUCKET = "b"


def event(key="p/a.csv", kind="Object Created", bucket=BUCKET, **item):
    """As EventBridge sends it."""
    return {
        "version": "0",
        "id": "17793124-05d4",
        "detail-type": kind,
        "source": "aws.s3",
        "time": "2026-11-24T13:34:53Z",
        "detail": {
            "bucket": {"name": bucket},
            "object": {"key": key, "size": 3, "etag": "e1", "version-id": "v1", **item},
        },
    }


def record(key="p/a.csv", name="ObjectCreated:Put", bucket=BUCKET, **item):
    """As S3 itself sends it."""
    told = {"key": key, "size": 3, "eTag": "e1", "versionId": "v1", **item}
    return {
        "eventName": name,
        "eventTime": "2026-11-24T13:34:53.123Z",
        "s3": {"bucket": {"name": bucket}, "object": told},
    }


def one(told):
    """The only word of a message."""
    (word,) = read(told if isinstance(told, str) else json.dumps(told), BUCKET)
    return word


@pytest.mark.parametrize(
    "told",
    [
        event(sequencer="00617F08299329D189"),
        event(eTag="e1", sequencer="00617F08299329D189"),
        {"Records": [record(sequencer="00617F08299329D189")]},
        {
            "Type": "Notification",
            "Message": json.dumps({"Records": [record(sequencer="00617F08299329D189")]}),
        },
    ],
)
def test_every_shape_says_the_same(told):
    """EventBridge's events, emulators' spellings, S3's records and SNS's wrapping are one word."""
    word = one(told)

    assert ("object", "p", "p/a.csv", "v1", 3, "e1") == (
        word.kind,
        word.pipeline,
        word.key,
        word.version,
        word.size,
        word.etag,
    )
    assert 1795527293 == int(word.at)
    assert word.order.startswith("00617F08299329D189")


def test_sequencers_of_different_lengths_are_compared_as_aws_says():
    """The shorter one is filled up on its right."""
    orders = [one(event(sequencer=text)).order for text in ("0A", "0a1", "0B", "")]

    assert [orders[3], *orders[:3]] == sorted(orders)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_keys_are_decoded_once(name):
    """S3's own records encode keys, EventBridge does not: both give the key as it was put."""
    key = f"p/x{name}.csv"
    encoded = quote_plus(key, safe="/")

    assert key == one(event(key)).key or not counts(key[2:], 3)
    word = one({"Records": [record(encoded)]})
    assert word.kind == "nothing" or (key, encoded) == (word.key, word.raw or encoded)


@pytest.mark.parametrize(
    "told",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET},
        event(kind="Object Deleted"),
        {"Records": [record(name="ObjectRemoved:Delete")]},
        event("p/_manifests/2026-11-24/0a.json"),
        event("p/folder/", size=0),
        event("p/", size=0),
        event("p/.hidden/a.csv"),
        event("p/a.csv.part"),
    ],
)
def test_what_is_no_data_says_nothing(told):
    """Tests of the connection, removals, folders' marks, our manifests, unfinished files."""
    assert "nothing" == one(told).kind


@pytest.mark.parametrize("source", ["ml-control.schedule", "aws.scheduler", "aws.events"])
def test_a_schedule_calls_a_pipeline(source):
    """The detail names it; the event's id stays the same however often it comes."""
    word = one({"source": source, "id": "e7", "time": "2026-11-24T13:34:53Z",
                "detail": {"pipeline": "flowers"}})  # fmt: skip

    assert ("call", "flowers", "e7", 1795527293.0) == (word.kind, word.pipeline, word.id, word.at)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("no json", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[1]", "no JSON object"),
        ("{}", "its source is 'None'"),
        ({"source": "my.app"}, "its source is 'my.app'"),
        (event(bucket="other"), "about bucket other, not b"),
        ({"source": "aws.s3", "detail-type": "Object Created"}, "has no 'detail'"),
        ({"source": "ml-control.schedule", "detail": {}}, "has no 'pipeline'"),
        ({"source": "ml-control.schedule", "detail": {"pipeline": 7}}, "names no pipeline"),
        ({"Records": [{"eventName": "ObjectCreated:Put"}]}, "has no 's3'"),
        (event(size="many"), "invalid literal"),
        ({**event(), "time": "soon"}, "Invalid isoformat"),
        (event(size=float("inf")), "infinity"),
        (event("p/\ud800.csv"), "surrogates not allowed"),
        (event(bucket="\ud800"), "about bucket \\ud800"),
        ({"source": "aws.events", "detail": {"pipeline": "\ud800"}}, "surrogates not allowed"),
    ],
)
def test_what_nobody_knows_is_told_with_the_reason(told, reason):
    """Reading never fails: the word says what was wrong."""
    word = one(told)

    assert "unreadable" == word.kind
    assert reason in word.reason
    assert word.reason.encode()  # so that it can be kept


def test_a_record_that_cannot_be_read_leaves_the_others():
    """Of several records in a message each is read for itself."""
    good = record()
    words = read(json.dumps({"Records": [good, {}, 7, good]}), BUCKET)

    assert ["object", "unreadable", "unreadable", "object"] == [word.kind for word in words]


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["Records", "source", "detail", "object", "key", "s3", "bucket", "x"]),
        inner | st.just("aws.s3"), max_size=4,
    ),
    max_leaves=12,
))  # fmt: skip
def test_reading_never_raises(told):
    """Any JSON is an object, a call, nothing, or unreadable."""
    words = read(json.dumps(told), BUCKET)

    assert {word.kind for word in words} <= {"object", "call", "nothing", "unreadable"}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("a.csv", "no pipeline"),
        ("/a.csv", "no pipeline"),
        ("p//a.csv", "an empty part"),
        ("p/../a.csv", "an empty part"),
        ("p/a/", "an empty part"),
        ("p/a\nb", "control characters"),
        ("p/a\u2028b", "control characters"),
        ("p/" + "ä" * 500, "longer than 850 bytes"),
        ("p/a b+c#v=1.csv", ""),
    ],
)
def test_a_key_that_can_never_be_taken_says_why(key, why):
    """Keys are refused for what they are; odd ones that can be read are not."""
    assert why in unusable(key)
    assert bool(why) == bool(unusable(key))
