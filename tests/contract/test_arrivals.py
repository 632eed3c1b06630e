"""Arrivals under crashes: whatever dies wherever, every byte put is in the lake exactly once."""

from __future__ import annotations

import hashlib
import random
import sys
import threading

import pytest

from ml_control.errors import Conflict
from ml_control.local import notifications as adapter

P = "flowers"


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Crash(BaseException):
    """The process ends here."""


class Intake:
    """What take-in does with a source: record durably, then acknowledge."""

    def __init__(self, place) -> None:
        self.place = place
        self.ledger: set[tuple[str, str]] = set()
        self.paths: set[str] = set()

    def once(self, source, limit=1000):
        """One pass; gives how many notices came."""
        with source.exclusive(P):
            notices = source.receive(P, 0.0, limit)
            read = self.place.lake.get
            self.ledger |= {(notice.key, sha(read(notice.path))) for notice in notices}
            self.paths |= {notice.path for notice in notices}
            source.acknowledge(notices)
        return len(notices)

    def rest(self, source):
        """Passes until nothing comes any more."""
        while self.once(source):
            pass

    def check(self, put):
        """Everything put is in the ledger; the lake has its bytes, once; nothing waits."""
        place = self.place
        assert {(f"{P}/{name}", sha(data)) for name, data in put} == self.ledger
        held = place.paths()
        assert sorted(path for path in self.paths if path) == held
        assert sorted(data for _, data in set(put)) == sorted(map(place.lake.get, held))
        assert [] == place.left()


def crash_after(lines, action):
    """Run an action; die before the given line of the adapter. Gives whether it got to its end."""
    left = lines

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename != adapter.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Crash
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except Crash:
        return False
    finally:
        sys.settrace(before)
    return True


@pytest.mark.usefixtures("local_only")
# Dying just before a file is closed leaves closing it to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("limit", [1000, 1])
def test_a_crash_at_any_line_loses_nothing(place, limit):
    """Dying before the n-th line, for every n, then going on: nothing lost, nothing twice."""
    put: list[tuple[str, bytes]] = []
    intake, line, ended = Intake(place), 0, False

    def drop(name, data):
        if (place.folder / name).exists():  # never taken: its owner replaces it
            put.remove(next(each for each in reversed(put) if each[0] == name))
        put.append((name, place.put(name, data)))

    while not ended:
        line += 1
        drop("a.csv", f"first {line}".encode())
        drop("dt=2026-05-01/cat/b.png", f"second {line}".encode())
        ended = crash_after(line, lambda: intake.once(place.client(), limit))
        if line % 3 == 0:
            drop("a.csv", f"overwritten {line}".encode())
            intake.rest(place.client())

    intake.rest(place.client())
    intake.check(put)
    assert line > 50  # it did die in many places
    assert [] == list(place.folder.glob(".taken/*"))


def test_files_taken_by_a_killed_process_come_again(place):
    """A process killed between receiving and acknowledging leaves everything to the next."""
    put = [(f"{i}.csv", place.put(f"{i}.csv", f"{i}".encode())) for i in range(20)]
    process = place.process(
        f"notices = source.receive({P!r}, 0.0, 1000)\n"
        "source.acknowledge(notices[:5])\n"
        "print(*(f'{n.key} {n.version} {n.path}' for n in notices[:5]), sep='\\n', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    intake = Intake(place)
    try:
        for _ in range(5):
            key, version, path = process.stdout.readline().split()
            intake.ledger.add((key, version))
            intake.paths.add(path)
    finally:
        process.kill()
        process.communicate()

    place.again()
    assert 15 == intake.once(place.client())
    intake.rest(place.client())
    intake.check(put)


def test_everything_put_meanwhile_arrives_once(place):
    """Two intakes take turns while files are put and overwritten: the books balance."""
    put: list[tuple[str, bytes]] = []
    seen, done, random_names = Intake(place), threading.Event(), random.Random(7)

    def drop():
        for number in range(place.many):
            name = f"{random_names.randrange(20)}.csv"
            put.append((name, place.put(name, f"{number}".encode())))
        done.set()

    def take():
        source = place.client()
        while not done.is_set():
            try:
                seen.once(source, limit=7)
            except Conflict:
                continue

    workers = [threading.Thread(target=work) for work in (take, take, drop)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    place.again()
    seen.rest(place.client())

    # A file overwritten before it was taken is gone by its owner's will; the last one never is.
    versions = {(f"{P}/{name}", sha(data)) for name, data in put}
    last = {(f"{P}/{name}", sha(data)) for name, data in dict(put).items()}
    assert last <= seen.ledger <= versions
    assert sorted(seen.paths) == place.paths()
    assert [] == place.left()
