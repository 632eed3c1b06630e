"""What a listing of the raw area promises: every object once, in order, resumable, and no other."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import time

import pytest

P = "flowers"


def taken(place, source=None):
    """Take in what was put; gives the notices."""
    source = source or place.client()
    notices = source.receive(P, 0.0, 100_000)
    source.acknowledge(notices)
    return notices


def walk(source, limit):
    """All pages of a listing."""
    found, after = [], ""
    while page := source.stored(P, after, limit):
        found += page
        after = page[-1].path
    return found


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_every_object_is_listed_once_in_order(place, limit):
    """Whatever the size of a page, two clients taking turns see each object once, sorted."""
    names = ["a.csv", "dt=2026-05-01/b.csv", "dt=2026-05-01/b/c.csv", "dt=2026-05-01/b-c.csv",
             "dt=2026-05-02/cat/d.png", "z", "dt=2026-05-01/b.csv.gz"]  # fmt: skip
    for name in names:
        place.put(name, name.encode())
    notices = taken(place)
    clients, found, after = [place.client(), place.client()], [], ""

    while page := clients[len(found) % 2].stored(P, after, limit):
        assert len(page) <= limit
        found += page
        after = page[-1].path

    assert sorted(notice.path for notice in notices) == [item.path for item in found]
    assert [] == place.client().stored("another", "", 5)


@pytest.mark.usefixtures("local_only")
def test_a_page_starts_anywhere(place):
    """Any string may be the place to go on from: what sorts after it comes, as in a bucket."""
    for number in range(30):
        place.put(f"dt=2026-05-0{1 + number % 3}/{number % 4}/{number}.csv", b"%d" % number)
    taken(place)
    paths = [item.path for item in walk(place.client(), 7)]
    starts = [path[: random.Random(5).randrange(len(path) + 1)] for path in paths]

    for after in [*paths, *starts, "raw", "zzz", ""]:
        assert [path for path in paths if path > after] == [
            item.path for item in place.client().stored(P, after, 1000)
        ]


@pytest.mark.usefixtures("local_only")
def test_what_is_no_object_is_not_listed(place):
    """Manifests, drafts, half-written copies and links are left out; unknown folders are not."""
    place.put("a.csv")
    (notice,) = taken(place)
    area = place.home / "lake" / "raw" / P
    for name in ["_manifests/2026-05-01/x.json", ".draft", "dt=2026-05-01/.a.csv.1f", "b.csv#7"]:
        (area / name).parent.mkdir(parents=True, exist_ok=True)
        (area / name).write_text("x")
    (area / "link.csv").symlink_to("/etc/hostname")
    (area / "strange folder").mkdir()
    (area / "strange folder" / "c.csv").write_text("x")

    found = [item.path for item in place.client().stored(P, "", 100)]

    assert [notice.path, f"raw/{P}/strange folder/c.csv"] == found


def test_new_objects_are_seen_by_a_client_that_listed_before(place):
    """What is remembered of a folder is not believed once the folder has changed."""
    one, other = place.client(), place.client()
    for number in range(5):
        place.put(f"dt=2026-05-01/{number}.csv", b"%d" % number)
        taken(place, other)

        assert number + 1 == len(one.stored(P, "", 100))


def test_an_object_is_identified_by_its_bytes(place):
    """Reading gives version and size; the key is the one that the ledger or the path tells."""
    data = place.put("dt=2026-05-01/a.b.csv", b"some")
    (notice,) = taken(place)
    (item,) = place.client().stored(P, "", 10)

    found = place.client().identify(item, item.key)

    assert f"{P}/dt=2026-05-01/a.b.csv" == item.key == notice.key
    assert item.path.startswith(item.beside)
    assert (notice.version, len(data), notice.path) == (found.version, found.size, found.path)
    assert notice.at == pytest.approx(found.at, abs=2)
    assert item.at == place.client().arrived(item.path)
    place.remove(item.path)
    assert (None, None) == (place.client().identify(item, ""), place.client().arrived(item.path))


@pytest.mark.usefixtures("local_only")
def test_what_crashes_left_is_removed_and_nothing_else(place):
    """Old drafts and emptied folders go; what is being written or waits to be recorded stays."""
    one = place.client()
    place.put("a.csv")
    one.receive(P, 0.0, 10)  # taken, not acknowledged
    (place.folder / ".taken" / "00000000000000000001-dead" / "deep").mkdir(parents=True)
    old, new = place.folder / ".admit-old", place.folder / ".admit-new"
    raw = place.home / "lake" / "raw" / P / ".x.csv.0a"
    for draft in (old, new, raw):
        draft.write_text("half")
    real = time.time
    try:
        time.time = lambda: real() + 7200  # an hour and more after all of them were written
        new.write_text("half")
        os.utime(new, (real() + 7200,) * 2)
        gone = place.client().tidy(P)
        one.stored(P, "", 10)
    finally:
        time.time = real

    assert (2, False, True, False) == (gone, old.exists(), new.exists(), raw.exists())
    assert 1 == len(list((place.folder / ".taken").glob("*")))
    assert ["a.csv"] == [n.key.rpartition("/")[2] for n in one.receive(P, 0.0, 10)]
    assert 0 == place.client().tidy(P)


@pytest.mark.usefixtures("local_only")
def test_a_file_that_is_still_being_written_waits(place):
    """A writer that pauses longer than the settle time keeps its file; it comes once, whole."""
    process = place.process(
        f"stream = open(home / 'landing' / {P!r} / 'slow.csv', 'wb')\n"
        "stream.write(b'half'); stream.flush()\nprint('half', flush=True)\nsys.stdin.readline()\n"
        "stream.write(b' whole'); stream.close()\nprint('whole', flush=True)\n"
    )
    try:
        assert "half\n" == process.stdout.readline()
        place.put("other.csv")
        during = place.client().receive(P, 0.0, 10)
        place.client().acknowledge(during)
        process.stdin.write("\n")
        process.stdin.flush()
        assert "whole\n" == process.stdout.readline()
    finally:
        process.kill()
        process.communicate()
    (after,) = place.client().receive(P, 0.0, 10)

    assert [f"{P}/other.csv"] == [notice.key for notice in during]
    assert b"half whole" == place.lake.get(after.path)


@pytest.mark.usefixtures("local_only")
def test_looking_whether_a_file_is_written_cannot_end_the_process(place, tmp_path):
    """A file opened for writing in the moment of the look only wakes a signal that is ignored."""
    file = tmp_path / "x"
    file.write_text("x")
    handle = os.open(file, os.O_RDONLY)
    fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)

    with pytest.raises(BlockingIOError) as refused:
        os.open(file, os.O_WRONLY | os.O_NONBLOCK)

    os.close(handle)
    assert errno.EWOULDBLOCK == refused.value.errno
