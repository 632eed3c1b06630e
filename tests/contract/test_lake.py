"""The lake: objects whole or not at all, keys that stay inside, bytes as they were recorded."""

from __future__ import annotations

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from arriving import clients_of
from emulators import credentials, fresh_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_control.aws.lake import open_lake
from ml_control.errors import BadObject, Conflict, PlatformFailed, Retryable
from ml_control.lake import AREAS, Lake, file_digest
from ml_control.testing.account import make_buckets

OUTSIDE = [
    "raw/../secret",
    "raw/a/../../../secret",
    "raw/..",
    "raw/./a",
    "raw/a/.",
    "raw//etc/passwd",
    "raw/a//b",
    "raw/a/",
    "raw/a\nb",
    "raw/a\x00b",
    "raw/a\x7f",
    "raw/a#1",
    "raw/a#1/b",
    "/raw/a",
    "../raw/a",
    "other/a",
    "RAW/a",
    "raw",
    "raw/",
    "",
    "/",
]


@pytest.fixture(params=["local", "aws"])
def two(request, tmp_path):
    """Two clients of one lake."""
    if request.param == "local":
        yield Lake.local(tmp_path / "lake"), Lake.local(tmp_path / "lake")
        return
    with credentials():
        settings = fresh_settings()
        make_buckets(clients_of(settings))
        yield open_lake(clients_of(settings)), open_lake(clients_of(settings))


@pytest.mark.parametrize("area", AREAS)
def test_what_was_put_is_there_for_everybody(two, area):
    """An object is read back by another client, under its key, until it is deleted."""
    one, other = two
    digest = one.put(f"{area}/p/a.bin", b"\x00data")

    assert hashlib.sha256(b"\x00data").hexdigest() == digest
    assert b"\x00data" == other.get(f"{area}/p/a.bin") == other.verified(f"{area}/p/a.bin", digest)
    assert other.exists(f"{area}/p/a.bin")
    assert re.search(rf"{area}[^/]*/p/a.bin$", other.uri(f"{area}/p/a.bin"))
    other.delete(f"{area}/p/a.bin")
    other.delete(f"{area}/p/a.bin")
    assert not one.exists(f"{area}/p/a.bin")


@pytest.mark.usefixtures("local_only")
def test_an_object_of_a_folder_is_its_file(two):
    """The file behind a key has the object's bytes and digest."""
    digest = two[0].put("raw/p/a.bin", b"\x00data")

    assert b"\x00data" == two[1].local_path("raw/p/a.bin").read_bytes()
    assert digest == file_digest(two[1].local_path("raw/p/a.bin"))


CHUNKS = [b"a" * (6 << 20), b"", b"b", b"c" * (9 << 20)]


def test_a_stream_is_the_same_object(two):
    """An object put in chunks is read whole or in chunks, by another client, byte for byte."""
    one, other = two
    digest, size = one.put_stream("processed/p/big", iter(CHUNKS))

    data = b"".join(CHUNKS)
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)
    assert data == other.get("processed/p/big")
    read = list(other.stream("processed/p/big"))
    assert data == b"".join(read)
    assert len(read) > 1
    assert (hashlib.sha256(b"").hexdigest(), 0) == one.put_stream("raw/none", iter([]))
    assert [b""] * 2 == [other.get("raw/none"), b"".join(other.stream("raw/none"))]


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_broken_stream_leaves_what_was(two, before):
    """When the source of the chunks fails, the object is as it was, and nothing else appears."""
    one, other = two
    if before is not None:
        one.put("raw/p/a", before)

    def broken():
        yield from CHUNKS
        raise BadObject("x", "is cut off")

    with pytest.raises(BadObject, match="cut off"):
        one.put_stream("raw/p/a", broken())

    assert (["raw/p/a"] if before else []) == list(other.list("raw/p"))
    assert before is None or before == other.get("raw/p/a")


@pytest.mark.usefixtures("local_only")
def test_a_file_for_readers_that_seek(two):
    """A local object is its own file; from a bucket it is a copy that goes away."""
    one, _ = two
    one.put("raw/p/a", b"data")
    remote = Lake(one._stores)

    with one.local_file("raw/p/a") as own, remote.local_file("raw/p/a") as copy:
        assert one.local_path("raw/p/a") == own
        assert own != copy
        assert [b"data"] * 2 == [own.read_bytes(), copy.read_bytes()]
    assert (True, False) == (own.exists(), copy.exists())
    for lake in (one, remote):
        with pytest.raises(Retryable, match="raw/p/none"), lake.local_file("raw/p/none"):
            pass


def test_areas_are_apart(two):
    """The same key in two areas is two objects."""
    one, other = two
    one.put("raw/a", b"1")
    one.put("logs/a", b"2")

    assert (b"1", b"2") == (other.get("raw/a"), other.get("logs/a"))
    other.delete("raw/a")
    assert (False, True) == (one.exists("raw/a"), one.exists("logs/a"))


def test_an_absent_object_may_come(two):
    """Reading what is not there (yet), a folder included, may work later."""
    one, other = two
    one.put("raw/p/a", b"1")

    for key in ("raw/p/b", "raw/q/a", "raw/p"):
        assert not other.exists(key)
        with pytest.raises(Retryable, match=key):
            other.get(key)
        with pytest.raises(Retryable):
            other.verified(key, "0" * 64)
        with pytest.raises(Retryable):
            list(other.stream(key))


def test_a_put_replaces_and_a_create_does_not(two):
    """Creating an object that is there is refused and leaves it as it was."""
    one, other = two
    one.create("artifacts/p/v", b"first")
    with pytest.raises(Conflict, match="artifacts/p/v"):
        other.create("artifacts/p/v", b"second")
    assert b"first" == one.get("artifacts/p/v")

    other.put("artifacts/p/v", b"third")
    assert b"third" == one.get("artifacts/p/v")


def test_one_of_many_creates_an_object(two):
    """Of eight that create the same object at once one does, and its bytes are whole."""
    start = threading.Barrier(8)

    def create(number):
        start.wait()
        try:
            two[number % 2].create("raw/a", bytes([number]) * 100_000)
        except Conflict:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(create, range(8)) if number is not None]
    assert [bytes(winners) * 100_000] == [two[0].get("raw/a")]


def test_a_reader_sees_an_object_whole(two):
    """While a writer replaces an object again and again, a reader never sees half of one."""
    one, other = two
    one.put("raw/a", b"0" * 200_000)
    done = threading.Event()

    def write():
        for number in range(60):
            one.put("raw/a", str(number % 10).encode() * 200_000)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set() and not writing.done():
            data = other.get("raw/a")
            assert (200_000, 1) == (len(data), len(set(data)))
        writing.result()


@pytest.mark.parametrize("change", [b"changed", b"", b"Data", b"data\n"])
def test_changed_bytes_are_found(two, change):
    """Bytes that differ from what was recorded are never handed out as recorded."""
    one, other = two
    digest = one.put("raw/a", b"data")
    one.put("raw/a", change)

    with pytest.raises(BadObject, match="bytes changed after they were recorded"):
        other.verified("raw/a", digest)
    assert change == other.get("raw/a")


def test_lists_are_sorted_and_stay_below_their_prefix(two):
    """A prefix is whole segments: a neighbour whose name begins the same is not below it."""
    one, other = two
    keys = [f"raw/p/{name}" for name in ("b", "a/2", "a/10", "a", "ab/1")]
    for key in [*keys[:3], *keys[4:], "raw/pq/x", "logs/p/y"]:
        one.put(key, b"1")

    assert ["raw/p/a/10", "raw/p/a/2", "raw/p/ab/1", "raw/p/b"] == list(other.list("raw/p"))
    assert list(other.list("raw/p")) == list(other.list("raw/p/"))
    assert ["raw/p/a/10", "raw/p/a/2"] == list(other.list("raw/p/a"))
    assert [] == list(other.list("raw/absent"))


@pytest.mark.usefixtures("local_only")
def test_long_lists_are_whole(two):
    """More objects than a store gives at once are all listed."""
    one, other = two
    folder = one.local_path("raw/p/0").parent
    for number in range(2500):
        (folder / f"{number:04d}").touch()

    assert [f"raw/p/{number:04d}" for number in range(2500)] == list(other.list("raw/p"))


@pytest.mark.parametrize("key", OUTSIDE)
def test_keys_that_lead_elsewhere_are_refused(two, key, tmp_path):
    """No operation follows a key out of its area, or takes one that cannot be one."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "lake").mkdir(exist_ok=True)
    (tmp_path / "lake" / "secret").write_bytes(b"secret")
    lake = two[0]
    operations = [
        lambda: lake.put(key, b"x"),
        lambda: lake.create(key, b"x"),
        lambda: lake.get(key),
        lambda: lake.put_stream(key, iter([b"x"])),
        lambda: list(lake.stream(key)),
        lambda: lake.local_file(key).__enter__(),
        lambda: lake.verified(key, "0" * 64),
        lambda: lake.exists(key),
        lambda: lake.delete(key),
        lambda: lake.local_path(key),
    ]
    if not key.endswith("/"):  # a list may be asked for with one
        operations.append(lambda: list(lake.list(key)))

    for operation in operations:
        with pytest.raises(BadObject) as refusal:
            operation()
        assert key == refusal.value.object
    assert [b"secret"] * 2 == [
        path.read_bytes() for path in (tmp_path / "secret", tmp_path / "lake" / "secret")
    ]


@pytest.mark.usefixtures("local_only")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=12),
        min_size=1,
        max_size=4,
    ),
    data=st.binary(max_size=50),
)
def test_any_key_is_refused_or_exact(two, tmp_path, parts, data):
    """Whatever text is in a key, it is refused or the very same file for store and path."""
    one, other = two
    key = "/".join(["raw", "p", *parts])
    try:
        path = one.local_path(key)
    except BadObject:
        with pytest.raises(BadObject):
            one.put(key, data)
        return

    assert path.resolve().is_relative_to(tmp_path / "lake" / "raw" / "p")
    try:
        one.put(key, data)
    except PlatformFailed:  # an example before made a folder of this name, or a file of a folder's
        return
    assert (data, data) == (other.get(key), path.read_bytes())
    assert key in list(other.list("raw/p"))
    one.delete(key)


@pytest.mark.usefixtures("local_only")
def test_a_store_that_fails_says_so_in_its_own_words(two):
    """A name longer than the platform takes is refused by every operation with a typed error."""
    key = "raw/" + "x" * 300
    for operation in (
        lambda: two[0].put(key, b"x"),
        lambda: two[0].create(key, b"x"),
        lambda: two[0].get(key),
        lambda: two[0].put_stream(key, iter([b"x"])),
        lambda: list(two[0].stream(key)),
        lambda: two[0].exists(key),
        lambda: two[0].delete(key),
    ):
        with pytest.raises(PlatformFailed, match="too long"):
            operation()


def test_a_lake_without_files_has_no_paths(two):
    """A lake in buckets refuses to name a local file, and names the object by its key."""
    stores = two[0]._stores
    remote = Lake(stores)

    with pytest.raises(PlatformFailed, match="no local files"):
        remote.local_path("raw/a")
    assert "raw/a" == remote.uri("raw/a")
