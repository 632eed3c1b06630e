"""What every source of arrivals promises: whole, once in the lake, again until acknowledged."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ml_control.errors import BadObject, Conflict, PlatformFailed
from ml_control.local import notifications as adapter
from ml_control.local import raw_area

P = "flowers"
NOON = 1_780_000_000.0  # 2026-05-28 UTC, the time of every file that is put


@pytest.fixture
def one(place):
    """The first client."""
    return place.client()


@pytest.fixture
def other(place):
    """The second client."""
    return place.client()


def take(source, limit=1000):
    return source.receive(P, 0.0, limit)


def sha(data):
    return hashlib.sha256(data).hexdigest()


@contextmanager
def held(source, seconds=10.0):
    """The arrivals, once a dead holder's lease ran out."""
    until = time.monotonic() + seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(source.exclusive(P))
                break
            except Conflict:
                assert time.monotonic() < until
                time.sleep(0.1)
        yield


def same(notices, before):
    """The notices with the handles of those before: each delivery may have one of its own."""
    return [replace(n, handle=b.handle) for n, b in zip(notices, before, strict=True)]


def names(notices):
    return sorted(notice.key.removeprefix(f"{P}/") for notice in notices)


def test_a_file_becomes_a_pinned_notice(place, one, other):
    """The notice names bucket, key, content, size and time, and its bytes are in the lake."""
    data = place.put("dt=2026-05-01/a.csv", b"a,b\n1,2\n")
    (notice,) = take(one)

    assert (place.bucket, f"{P}/dt=2026-05-01/a.csv") == (notice.bucket, notice.key)
    assert (len(data), True, "") == (notice.size, notice.fresh, notice.refused)
    assert notice.at == pytest.approx(place.now(NOON), abs=5)
    assert data == place.lake.verified(notice.path, sha(data))
    assert notice.path.startswith(f"raw/{P}/dt=2026-05-01/")

    other.acknowledge([notice])
    assert [] == take(one) == take(other) == place.left()


@pytest.mark.usefixtures("local_only")
def test_a_file_without_a_date_lies_under_the_day_it_was_written(place, one):
    """The lake's folder is the UTC day of the file's own time."""
    place.put("a.csv")

    assert take(one)[0].path.startswith(f"raw/{P}/dt={datetime.fromtimestamp(NOON, UTC).date()}/")


def test_a_notice_comes_until_it_is_acknowledged(place, one, other):
    """Whoever looks gets the same notice again; acknowledging twice is harmless."""
    place.put("a.csv")
    first = take(one)

    for client in (other, place.client()):
        place.again()
        found = take(client)
        assert first == same(found, first)
    other.acknowledge(found)
    one.acknowledge(found)
    place.again()
    assert [] == take(one)


@pytest.mark.usefixtures("local_only")
def test_a_file_that_still_changes_is_left(place, one):
    """A bare copy waits until it was unchanged for the settle time, whatever its own date."""
    place.put("growing.csv", at=NOON)
    assert [] == one.receive(P, 3600.0, 10)
    assert ["growing.csv"] == place.left()

    assert ["growing.csv"] == names(one.receive(P, 0.0, 10))


@pytest.mark.usefixtures("local_only")
def test_unfinished_and_hidden_files_are_left(place, one):
    """What browsers, editors and copiers write on the side is nobody's data."""
    left = ["a.tmp", "a.part", "a.partial", "a.crdownload", ".a.swp", ".hidden", ".dir/a.csv"]
    for name in [*left, "dt=2026-05-01/b.csv.tmp", "a.csv"]:
        place.put(name)

    assert ["a.csv"] == names(take(one))
    assert set(left) <= set(place.left())


@pytest.mark.usefixtures("local_only")
def test_the_oldest_come_first_and_not_more_than_asked(place, one):
    """A limit cuts off the newest, and what is left comes next time."""
    for number in (3, 1, 2, 5, 4):
        place.put(f"{9 - number}.csv", at=NOON + number)
        place.tick()

    first = take(one, limit=3)
    assert ["8.csv", "7.csv", "6.csv"] == [n.key.rpartition("/")[2] for n in first]
    assert first[:2] == take(one, limit=2)
    one.acknowledge(first)
    assert ["4.csv", "5.csv"] == names(take(one, limit=3))
    assert [] == place.client().receive("another", 0.0, 5)


def test_one_name_with_two_contents_is_two_versions(place, one):
    """An overwrite is another version of the same key, and the first one's bytes stay."""
    old, new = place.put("a.csv", b"old"), None
    (first,) = take(one)
    one.acknowledge([first])
    new = place.put("a.csv", b"new")
    (second,) = take(one)

    assert (first.key, True) == (second.key, first.version != second.version)
    assert (old, new) == (place.lake.get(first.path), place.lake.get(second.path))


def test_an_overwrite_while_the_first_is_taken_loses_neither(place, one, other):
    """A file put while its namesake is being taken in comes after it, and both are kept."""
    place.put("a.csv", b"old")
    one.receive(P, 0.0, 10)
    place.put("a.csv", b"new")

    place.again()
    notices = take(other)
    assert [b"old", b"new"] == [place.lake.get(notice.path) for notice in notices]
    one.acknowledge(notices[:1])
    place.again()
    assert notices[1:] == same(take(one), notices[1:])


@pytest.mark.usefixtures("local_only")
def test_the_same_content_again_is_word_of_it_again(place, one):
    """A put of known bytes is told as fresh, and the lake keeps the bytes once."""
    for _ in range(2):
        place.put("a.csv", b"same")
        (notice,) = take(one)
        assert notice.fresh
        one.acknowledge([notice])

    assert [notice.path] == list(place.lake.list(f"raw/{P}"))


@pytest.mark.usefixtures("local_only")
def test_a_file_that_may_not_be_read_stops_no_other(place, one, monkeypatch):
    """An unreadable file is refused with the reason; the others arrive."""
    place.put("good.csv")
    place.put("secret.csv")

    def guarded(path):
        if path.endswith("/secret.csv"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return sha(Path(path).read_bytes())

    monkeypatch.setattr(adapter, "file_digest", guarded)
    assert {"good.csv": "", "secret.csv": "may not be read by the user that takes files in"} == {
        notice.key.removeprefix(f"{P}/"): notice.refused for notice in take(one)
    }


@pytest.mark.usefixtures("local_only")
def test_a_lake_on_another_disk_gets_a_copy(place, one, monkeypatch):
    """Where files cannot be linked they are copied, whole under their final name."""

    def other_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    data = place.put("a.csv", b"x" * 100_000)
    (notice,) = take(one)

    assert data == place.lake.verified(notice.path, notice.version)
    assert [notice.path] == list(place.lake.list(f"raw/{P}"))


@pytest.mark.usefixtures("local_only")
def test_a_full_disk_loses_nothing(place, one, monkeypatch):
    """A file that cannot be pinned now is refused with the platform's words and comes later."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    place.put("a.csv")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(PlatformFailed, match="No space left"):
            take(one)

    assert ["a.csv"] == names(take(one))


def test_admit_copies_and_leaves_the_original(place, one, tmp_path):
    """A file that is admitted is in the lake at once, settled, and stays where it was."""
    file = tmp_path / "mine.csv"
    file.write_bytes(b"mine")
    notice = one.admit(P, "dt=2026-05-01/mine.csv", file)

    assert (b"mine", b"mine") == (place.lake.get(notice.path), file.read_bytes())
    assert (f"{P}/dt=2026-05-01/mine.csv", True) == (notice.key, notice.fresh)
    assert sha(b"mine") in (notice.version, notice.digest)
    one.acknowledge([notice])
    file.write_bytes(b"changed")
    assert b"mine" == place.lake.verified(notice.path, sha(b"mine"))
    again = take(one)  # a bucket tells of its own
    assert {(notice.path, notice.version, notice.put)} >= {
        (n.path, n.version, n.put) for n in again
    }
    one.acknowledge(again)
    assert [] == place.left()


@pytest.mark.parametrize("key", ["/etc/x", "../x", "a/../../x", "", ".", "a\nb"])
def test_admit_refuses_keys_outside_the_folder(place, one, tmp_path, key):
    """A key that leads out of the pipeline's folder, or cannot be shown, is refused."""
    file = tmp_path / "mine.csv"
    file.write_bytes(b"mine")

    with pytest.raises(BadObject):
        one.admit(P, key, file)
    assert [] == place.left() == place.paths()


def test_admit_refuses_a_file_that_is_not_there(place, one, tmp_path):
    """A folder or an absent file is named."""
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadObject, match=str(path)):
            one.admit(P, "a.csv", path)


def test_one_process_takes_files_in(place, one):
    """While another process holds the arrivals nobody else does; its end, or death, frees them."""
    process = place.process(
        f"with source.exclusive({P!r}):\n    print('held', flush=True)\n    sys.stdin.readline()\n"
    )
    try:
        assert "held\n" == process.stdout.readline()
        with pytest.raises(Conflict), one.exclusive(P):
            pass
        with one.exclusive("another"):
            pass
    finally:
        process.kill()
        process.communicate()

    with held(one), pytest.raises(Conflict), place.client().exclusive(P):
        pass
    with one.exclusive(P):
        pass


@pytest.mark.usefixtures("local_only")
def test_a_protected_file_is_copied_instead_of_linked(place, one, monkeypatch):
    """Where the system forbids a hard link, as for another user's file, the bytes are copied."""

    def forbidden(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    place.put("a.csv")
    place.put("b.csv")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", forbidden)
        notices = take(one)

    assert ["a.csv", "b.csv"] == sorted(names(notices))
    assert all(place.lake.exists(notice.path) for notice in notices)


@pytest.mark.usefixtures("local_only")
@pytest.mark.parametrize("count", [1, 60])
def test_files_are_on_the_disk_before_anybody_is_told(place, one, monkeypatch, count):
    """Bytes, name and folders of each file are synced, one by one or all at once, before the
    notices are given: what the ledger then holds outlives the power.
    """
    synced, whole = set(), []
    one_by_one, at_once = os.fsync, raw_area._sync_file_system

    def seen(handle):
        synced.add(os.fstat(handle).st_ino)
        one_by_one(handle)

    for number in range(count):
        place.put(f"dt=2026-05-01/{number}.csv", b"%d" % number)
    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(
        raw_area, "_sync_file_system", lambda root: whole.append(root) or at_once(root)
    )
    notices = take(one)

    assert count == len(notices)
    if count > 50:
        assert [place.home / "lake" / "raw"] == whole
        return
    path = place.lake.local_path(notices[0].path)
    assert {up.stat().st_ino for up in (path, *path.parents[:4])} <= synced
    assert [] == whole


@pytest.mark.usefixtures("local_only")
@pytest.mark.parametrize("count", [1, 60])
def test_a_disk_that_does_not_confirm_keeps_the_files_waiting(place, one, monkeypatch, count):
    """A failed sync is a refusal; nothing is told or lost, and the next intake has the files."""

    def failing(_):
        raise OSError(errno.EIO, "Input/output error")

    for number in range(count):
        place.put(f"{number}.csv", b"%d" % number)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        patch.setattr(raw_area, "_sync_file_system", failing)
        with pytest.raises(PlatformFailed, match="does not confirm"):
            take(one)

    assert count == len(take(one))


@pytest.mark.usefixtures("local_only")
def test_a_file_that_cannot_be_taken_does_not_stop_the_others(place, one, monkeypatch):
    """A file in a folder that is not ours to change waits; its neighbours are taken."""
    rename = os.rename

    def guarded(source, target):
        if source.endswith("/a.csv"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(source, target)

    place.put("a.csv")
    place.put("b.csv")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", guarded)
        assert ["b.csv"] == names(take(one))

    assert "a.csv" in names(take(one))
