"""The lake in buckets: a version is read for ever, and what AWS says becomes one of our errors."""

from __future__ import annotations

import hashlib
import re

import obstore
import pytest
from arriving import clients_of
from emulators import credentials, fresh_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_control.aws.lake import open_lake
from ml_control.errors import BadObject, Conflict, InvalidSpec, PlatformFailed, Retryable
from ml_control.lake import Lake, pinned, unpinned
from ml_control.testing.account import make_buckets


@pytest.fixture(scope="module")
def given_buckets():
    """Settings of one project with buckets for this file."""
    with credentials():
        told = fresh_settings()
        make_buckets(clients_of(told))
        yield told


@pytest.fixture
def lake(given_buckets):
    """A client of the lake."""
    return open_lake(clients_of(given_buckets))


def test_a_pinned_version_is_read_whatever_is_put_later(lake, given_buckets):
    """Every way of reading gives the version's own bytes; its address names it."""
    _, _, first = lake.put_version("raw/p/a.csv", iter([b"old"]))
    lake.put("raw/p/a.csv", b"newer")
    lake.delete("raw/p/a.csv")
    key = pinned("raw/p/a.csv", first)

    assert b"old" == lake.get(key) == b"".join(lake.stream(key))
    assert b"old" == lake.verified(key, hashlib.sha256(b"old").hexdigest())
    with lake.local_file(key) as copy:
        assert b"old" == copy.read_bytes()
    assert (True, False) == (lake.exists(key), lake.exists("raw/p/a.csv"))
    bucket = given_buckets.bucket("raw")
    assert f"s3://{bucket}/p/a.csv?versionId={first}" == lake.uri(key)
    assert f"s3://{bucket}/p/a.csv" == lake.uri("raw/p/a.csv")


def test_a_version_that_is_gone_may_be_restored(lake, given_buckets):
    """A version that was removed is absent, as any object that is not there."""
    _, _, version = lake.put_version("raw/p/gone.csv", iter([b"x"]))
    s3 = clients_of(given_buckets).client("s3")
    s3.delete_object(Bucket=given_buckets.bucket("raw"), Key="p/gone.csv", VersionId=version)
    key = pinned("raw/p/gone.csv", version)

    assert not lake.exists(key)
    for read in (
        lake.get,
        lambda k: list(lake.stream(k)),
        lambda k: lake.local_file(k).__enter__(),
    ):
        with pytest.raises(Retryable, match="is not in the lake"):
            read(key)


def test_versions_are_never_written(lake):
    """A key that names a version is refused by everything that changes an object."""
    for change in (
        lambda k: lake.put(k, b"x"),
        lambda k: lake.create(k, b"x"),
        lambda k: lake.put_stream(k, iter([b"x"])),
        lake.delete,
    ):
        with pytest.raises(BadObject, match="never written"):
            change(pinned("raw/p/a", "1"))


def test_only_buckets_have_pinned_keys(tmp_path):
    """In a folder such a key is the name of a file as any other."""
    local = Lake.local(tmp_path)
    local.put("raw/p/a#v=x1", b"1")

    assert b"1" == local.get("raw/p/a#v=x1")
    assert ["raw/p/a#v=x1"] == list(local.list("raw/p"))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=12))
def test_any_name_that_people_give_is_refused_or_read_exactly(lake, given_buckets, name):
    """An object that another tool put is read by its pinned key, whatever its name."""
    s3, key = clients_of(given_buckets).client("s3"), f"raw/n/{name}"
    try:
        lake._located(key, foreign=True)
    except BadObject:
        with pytest.raises(BadObject):
            lake.get(pinned(key, "1"))
        return
    bucket = given_buckets.bucket("raw")
    version = s3.put_object(Bucket=bucket, Key=f"n/{name}", Body=name.encode())["VersionId"]

    assert (key, version) == unpinned(pinned(key, version))
    assert name.encode() == lake.get(pinned(key, version))


def test_a_raw_bucket_without_versions_is_refused():
    """Naming the bucket and the command that enables them."""
    with credentials():
        told = fresh_settings()
        s3 = clients_of(told).client("s3")
        s3.create_bucket(
            Bucket=told.bucket("raw"),
            CreateBucketConfiguration={"LocationConstraint": told.region},
        )
        with pytest.raises(InvalidSpec, match="never enabled") as refusal:
            open_lake(clients_of(told))

    assert f"bucket {told.bucket('raw')}" == refusal.value.object
    assert "put-bucket-versioning" in refusal.value.next


def test_what_is_written_is_encrypted_by_the_named_key(given_buckets):
    """Puts, conditional ones and uploads in parts name the KMS key."""
    told = given_buckets.model_copy(update={"kms_key": "alias/lake"})
    lake, s3 = open_lake(clients_of(told)), clients_of(told).client("s3")
    lake.put("logs/k/a", b"1")
    lake.create("logs/k/b", b"1")
    lake.put_stream("logs/k/c", iter([b"1" * (6 << 20)]))

    for name in ("a", "b", "c"):
        head = s3.head_object(Bucket=told.bucket("logs"), Key=f"k/{name}")
        assert ("aws:kms", "alias/lake") == (head["ServerSideEncryption"], head["SSEKMSKeyId"])


def test_a_bucket_that_is_not_there_is_named(given_buckets):
    """Neither an absent object nor a full disk: the settings are wrong."""
    told = given_buckets.model_copy(update={"buckets": {"logs": "absent"}})
    lake = open_lake(clients_of(told))

    for do in (lambda: lake.get("logs/a"), lambda: lake.put("logs/a", b"1")):
        with pytest.raises(PlatformFailed, match="NoSuchBucket") as refusal:
            do()
        assert "[aws]" in refusal.value.next


def _answer(status, code, words="no"):
    """What the store says, with the words of a key and of its settings that are no reason."""
    return (
        "Generic S3 error: Error performing PUT http://x/connection-timeout/AccessDenied.csv in 1ms"
        ", after 0 retries, max_retries: 5, retry_timeout: 180s  - Server returned non-2xx status "
        f"code: {status}: <?xml?>\n<Error><Code>{code}</Code><Message>{words}</Message>"
        "<StringToSign>AKIASECRET</StringToSign></Error>\n\nDebug source: AKIASECRET\n"
        "RetryErrorImpl { retries: 0, max_retries: 5, retry_timeout: 180s }"
    )


TIMED_OUT = (
    "Generic S3 error: Error performing GET http://x in 1s, after 2 retries - HTTP error: "
    "operation timed out"
)


@pytest.mark.parametrize(
    ("error", "kind", "next"),
    [
        (_answer("503 Service Unavailable", "SlowDown"), Retryable, "wait"),
        (_answer("500 Internal Server Error", "InternalError"), Retryable, "wait"),
        (_answer("403 Forbidden", "AccessDenied"), PlatformFailed, "docs/aws.md"),
        (_answer("403 Forbidden", "SignatureDoesNotMatch"), PlatformFailed, "docs/aws.md"),
        (_answer("400 Bad Request", "ExpiredToken"), Retryable, "renew the credentials"),
        (_answer("400 Bad Request", "KMS.DisabledException"), PlatformFailed, "permissions"),
        (_answer("400 Bad Request", "KMS.ThrottlingException"), Retryable, "wait"),
        (_answer("403 Forbidden", "InvalidObjectState"), PlatformFailed, "restore-object"),
        (_answer("403 Forbidden", "RequestTimeTooSkewed"), PlatformFailed, "clock"),
        (TIMED_OUT, Retryable, "wait"),
    ],
)
def test_what_aws_says_becomes_one_of_our_errors(lake, monkeypatch, error, kind, next):
    """Throttling, refusals and expired credentials have their types; nothing secret is told."""

    def failing(*_, **__):
        raise obstore.exceptions.GenericError(error)

    monkeypatch.setattr(obstore, "put", failing)
    with pytest.raises(kind) as refusal:
        lake.put("raw/a", b"1")

    assert next in refusal.value.next
    assert "raw/a" == refusal.value.object
    assert not re.search("AKIA", str(refusal.value))


@pytest.mark.parametrize("refusals", [1, 99])
def test_a_put_that_met_another_on_its_way_is_not_taken_for_an_object_that_exists(
    lake, monkeypatch, refusals
):
    """S3 answers 409 while another conditional put is under way, which may yet fail: nothing is
    there then, so the put is done again, and given up as ``Retryable``.
    """
    put, left = obstore.put, [refusals]
    said = "already exists: " + _answer("409 Conflict", "ConditionalRequestConflict")

    def contended(*told, **more):
        left[0] -= 1
        if left[0] >= 0:
            raise obstore.exceptions.AlreadyExistsError(said)
        return put(*told, **more)

    monkeypatch.setattr(obstore, "put", contended)
    monkeypatch.setattr("time.sleep", lambda _: None)
    if refusals > 9:
        with pytest.raises(Retryable, match="logs/contended/99"):
            lake.create("logs/contended/99", b"ours")
    else:
        lake.create("logs/contended/1", b"ours")

    assert (refusals == 1) == lake.exists(f"logs/contended/{refusals}")
    if refusals == 1:
        with pytest.raises(Conflict):
            lake.create("logs/contended/1", b"another")
