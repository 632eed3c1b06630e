"""What lands and is no ordinary file, or has no ordinary name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

P = "flowers"


@pytest.fixture
def one(place):
    """A client."""
    return place.client()


def take(source):
    return source.receive(P, 0.0, 1000)


def names(notices):
    return sorted(notice.key.removeprefix(f"{P}/") for notice in notices)


def odd(place, kind):
    path = place.folder / "odd"
    if kind == "symlink":
        path.symlink_to("/etc/hostname")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "link to a folder":
        path.symlink_to("/etc")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(place.folder)  # a socket's whole path must be short
            try:
                server.bind("odd")
            finally:
                os.chdir(here)


@pytest.mark.usefixtures("local_only")
@pytest.mark.parametrize("kind", ["symlink", "dangling link", "link to a folder", "fifo", "socket"])
def test_what_is_no_file_is_refused_and_set_aside(place, one, kind):
    """Links and special files are neither read nor followed, and stop nothing else."""
    odd(place, kind)
    place.put("good.csv")
    notices = {notice.key: notice for notice in take(one)}

    assert "" == notices[f"{P}/good.csv"].refused
    assert ("", "is a link or a special file, not a file") == (
        notices[f"{P}/odd"].path,
        notices[f"{P}/odd"].refused,
    )
    one.acknowledge(notices.values())
    one.acknowledge(notices.values())
    assert ([], ["odd"], []) == (take(one), place.refused(), place.left())


@pytest.mark.usefixtures("local_only")
@pytest.mark.parametrize(
    "name", [b"a\nb.csv", b"\x1b[31mred", b"a\x7f", b"\xff\xfe", "a\u2028b".encode()]
)
def test_names_that_cannot_be_shown_are_refused(place, one, name):
    """Control characters, line ends and bytes that are no text never become keys."""
    (place.folder / os.fsdecode(name)).write_bytes(b"x")
    place.put("good.csv")
    notices = take(one)

    assert ["control characters" in n.refused for n in notices if n.refused] == [True]
    one.acknowledge(notices)
    assert (1, [], []) == (len(place.refused()), take(one), place.left())
    assert 1 == len(list(place.lake.list(f"raw/{P}")))


ODD = [
    "ünï cödé.csv",
    "日本語/花.csv",
    "😀.csv",
    "👩‍👩‍👧.csv",
    "Screenshot\u202f3.00 PM.png",
    "with space .csv",
    "-rf",
    "--help.csv",
    "#1",
    "a#7",
    "100%.csv",
    "a%20b.csv",
    "a%2Fb.csv",
    "'quoted\".csv",
    "back\\slash.csv",
    "*?[x].csv",
    "~",
    "a..csv",
    "noextension",
    "x" * 255,
    "x" * 240 + ".csv.gz",
    "a." + "y" * 253,
    "é" * 127,
    "deep/" * 20 + "a.csv",
    "dt=2026-05-01/cat/1.png",
]


def test_odd_names_are_only_names(place, one):
    """Whatever a file is called, its bytes arrive under its own key, once."""
    content = {name: place.put(name, f"content of {name}".encode()) for name in ODD}
    notices = take(one)

    assert sorted(ODD) == names(notices)
    for notice in notices:
        assert "" == notice.refused
        assert content[notice.key.removeprefix(f"{P}/")] == place.lake.get(notice.path)
    assert sorted(notice.path for notice in notices) == place.paths()
    one.acknowledge(notices)
    assert [] == take(one) == place.left()
