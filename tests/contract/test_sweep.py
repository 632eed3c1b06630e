"""The sweep: what is in the lake and not in the ledger is recorded once, in the order it came."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest
from arriving import Bucket
from emulators import credentials, fresh_settings

from ml_control.services.alerts import attend
from ml_control.services.arrivals.intake import take_in
from ml_control.services.arrivals.requests import plan
from ml_control.services.arrivals.sweep import GRACE_SECONDS, sweep
from ml_control.testing.account import make_arrivals

P, DAY = "tumours", "2024-03-04"


class Installation:
    """A home whose clock can be moved, with files put and taken in by hand."""

    def __init__(self, home, monkeypatch, bucket=None):
        monkeypatch.setenv("ML_CONTROL_SWEEP_OBJECTS", "3")
        home.edit("  format: csv", "  format: csv\n    quiet: 0 s")
        self.home, self.platform, self.pipeline = home, home.platform, home.pipeline()
        self.bucket = bucket
        if bucket is not None:
            self.platform = replace(
                self.platform,
                lake=bucket.lake,
                notifications=bucket.client(visibility_seconds=30),
            )
        self.registry = self.platform.registry
        self.ledger = self.registry.ledger
        self.ahead = 0.0
        monkeypatch.setattr(self.registry, "clock", lambda: time.time() + self.ahead)

    def put(self, name, text="a\n"):
        """Drop a file of a day and take it in."""
        if self.bucket is not None:
            self.bucket.put_key(f"{P}/{name}", text.encode())
            take_in(self.platform, self.pipeline)
            return
        path = self.platform.settings.landing / P / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        take_in(self.platform, self.pipeline, settle=0.0)

    def forget(self, like="%", *, notes=True):
        """What a restored backup does: some events, and their paths' notes, never were."""
        with closing(sqlite3.connect(self.home.path / "registry.db")) as db, db:
            found = 'DELETE FROM "control-ledger" WHERE pk = ? AND '
            gone = db.execute(f"{found} sk LIKE ?", (f"event#{P}", like)).rowcount
            if notes:
                db.execute(f"{found} json_extract(body, '$.event') LIKE ?", (f"path#{P}", like))
        return gone

    def whole(self):
        """Steps until a pass is over; gives (looked at, found, steps)."""
        self.ahead += self.platform.settings.sweep_seconds + GRACE_SECONDS
        looked, found, step, under_way = 0, 0, 0, True
        while under_way:
            done = sweep(self.platform, self.pipeline)
            assert done.looked <= 3
            looked, found, step = looked + done.looked, found + done.found, step + 1
            under_way = self.registry.sweeps.get(P)[0].under_way
        return looked, found, step

    def events(self):
        """(key below the pipeline, state) of every event, in the order of their numbers."""
        events = sorted(self.ledger.events(P), key=lambda event: event.seq)
        return [(event.key.removeprefix(f"{P}/"), event.state) for event in events]


@pytest.fixture(params=["local", "aws"])
def place(request, home, monkeypatch, tmp_path):
    """A fresh home, whose objects lie in a folder or in a bucket."""
    if request.param == "local":
        yield Installation(home, monkeypatch)
        return
    with credentials():
        bucket = Bucket(tmp_path / "home", make_arrivals(fresh_settings()))
        yield Installation(home, monkeypatch, bucket)


def test_what_the_ledger_knows_is_left_alone(place):
    """A pass over known objects of all kinds of names records nothing and alerts nobody."""
    names = [f"dt={DAY}/a.csv", "odd näme #1.csv", "x" * 250, f"dt={DAY}T10/b.csv", "c.tar.gz"]
    for name in [*names, "dt=tomorrow/bad.csv"]:
        place.put(name, name)
    before = list(place.ledger.events(P))

    assert (6, 0, 3) == place.whole()
    assert before == list(place.ledger.events(P))
    assert [] == place.registry.alerts.open(P)


def test_lost_objects_are_found_in_the_order_they_came(place):
    """After a restore from an older backup every object is pending again, and it is told once."""
    for name in ("z.csv", "m.csv", "a.csv", "k.csv"):
        place.put(f"dt={DAY}/{name}", name)
        time.sleep(0.02)
    before = {(e.key, e.version, e.path) for e in place.ledger.events(P)}
    assert 4 == place.forget()

    assert (4, 4, 2) == place.whole()
    assert [(f"dt={DAY}/{name}", "pending") for name in ("a.csv", "k.csv", "m.csv", "z.csv")] == (
        sorted(place.events())
    )
    assert before == {(e.key, e.version, e.path) for e in place.ledger.events(P)}
    assert [DAY] == [w.partition for w in _plan(place).wanted]
    (alert,) = place.registry.alerts.open(P)
    assert "objects were in the lake that the ledger did not know" in alert.reason
    assert (4, 0, 2) == place.whole()
    assert [] == place.registry.alerts.open(P)


def _plan(place):
    return plan(place.platform, place.pipeline, in_flight=set(), limit=10)


@pytest.mark.usefixtures("local_only")
def test_found_objects_of_one_page_keep_the_order_of_their_arrival(place):
    """Within what one tick looks at, the number of an event tells when its object came."""
    for name in ("z.csv", "m.csv", "a.csv"):
        place.put(f"dt={DAY}/{name}", name)
        time.sleep(0.02)
    place.forget()
    place.whole()

    assert [f"dt={DAY}/{name}" for name in ("z.csv", "m.csv", "a.csv")] == [
        key for key, _ in place.events()
    ]


@pytest.mark.parametrize(
    ("lost", "states"),
    [
        ("old", {"old": "superseded", "new": "pending"}),
        ("new", {"old": "pending", "new": "pending"}),
    ],
)
def test_an_older_version_never_replaces_a_newer_one(place, lost, states):
    """Of two versions one was lost: whichever it was, the newer one stays or becomes current."""
    for text in ("old", "new"):
        place.put("odd näme.csv", text)
        time.sleep(0.05)
    versions = {e.version: e.size for e in place.ledger.events(P)}
    assert 2 == len(versions)
    ordered = [e.version for e in sorted(place.ledger.events(P), key=lambda e: e.seq)]
    named = dict(zip(ordered, ("old", "new"), strict=True))
    gone = next(version for version, name in named.items() if name == lost)
    assert 1 == place.forget(f"%{gone}")

    assert 1 == place.whole()[1]
    found = {named[e.version]: e for e in place.ledger.events(P)}
    assert states == {name: event.state for name, event in found.items()}
    assert {f"{P}/odd näme.csv"} == {event.key for event in found.values()}
    if lost == "new":
        assert found["new"].seq > found["old"].seq


def test_versions_found_pages_apart_keep_their_order(place):
    """Versions of one key that were all lost: the one that came last is current."""
    for number in range(8):
        place.put(f"dt={DAY}/a.csv", f"version {number}")
        last = max(place.ledger.events(P), key=lambda event: event.seq).version
        time.sleep(0.02)
    assert 8 == place.forget()

    assert 8 == place.whole()[1]
    open_now = [e for e in place.ledger.events(P) if e.state == "pending"]
    assert last == max(open_now, key=lambda event: event.seq).version


def test_a_pass_goes_on_where_it_was(place):
    """A process that dies between two steps leaves the next step to its successor."""
    for number in range(7):
        place.put(f"dt={DAY}/{number}.csv", f"{number}")
    place.ahead += 1000
    first = sweep(place.platform, place.pipeline)
    fresh, _ = place.registry.sweeps.get(P)

    assert (3, True) == (first.looked, fresh.under_way)
    assert [3, 1] == [sweep(place.platform, place.pipeline).looked for _ in range(2)]
    assert 0 == sweep(place.platform, place.pipeline).looked  # not due again yet
    assert (7, 1) == (
        place.registry.sweeps.get(P)[0].looked,
        place.registry.sweeps.get(P)[0].passes,
    )


def test_a_death_between_recording_and_moving_on_repeats_harmlessly(place, monkeypatch):
    """The step is done again, records nothing twice, and the alert was raised all the same."""
    place.put(f"dt={DAY}/a.csv")
    place.forget()
    place.ahead += 1000

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place.registry.sweeps, "put", die)
        with pytest.raises(KeyboardInterrupt):
            sweep(place.platform, place.pipeline)

    assert (1, 0, 1) == place.whole()
    assert [(f"dt={DAY}/a.csv", "pending")] == place.events()
    assert 1 == attend(place.platform, P)


def test_what_came_just_now_is_left_to_its_own_intake(place):
    """An object that another process is recording at this moment is not taken for a lost one."""
    place.put(f"dt={DAY}/a.csv")
    place.forget()

    assert 0 == sweep(place.platform, place.pipeline).found
    assert 1 == place.whole()[1]


@pytest.mark.usefixtures("local_only")
def test_changed_and_hand_made_objects_are_told_apart(place):
    """A known object whose bytes changed is no new one; a file put into the lake by hand is."""
    place.put(f"dt={DAY}/a.csv")
    (event,) = place.ledger.events(P)
    (place.home.path / "lake" / event.path).write_text("tampered")
    by_hand = place.home.path / "lake" / "raw" / P / f"dt={DAY}" / "mine.csv"
    by_hand.write_text("b\n")

    assert (2, 1, 1) == place.whole()
    assert [(f"dt={DAY}/a.csv", "pending"), (f"dt={DAY}/mine.csv", "pending")] == place.events()


def test_a_registry_from_before_the_notes_is_taken_over(place):
    """Events recorded by a version that noted no paths are known: nothing is recorded twice."""
    for name in ("odd näme.csv", f"dt={DAY}/a.csv"):
        place.put(name)
    with closing(sqlite3.connect(place.home.path / "registry.db")) as db, db:
        for kind in ("path", "waiting"):
            db.execute('DELETE FROM "control-ledger" WHERE pk = ?', (f"{kind}#{P}",))
    assert [] == list(place.ledger.waiting(P))

    assert 0 == place.whole()[1]
    assert 2 == sum(mark.objects for mark in place.ledger.waiting(P))


def test_a_clock_set_back_does_not_stop_the_sweep(place):
    """A pass that ended in the future does not keep the next one away for days."""
    place.ahead = 1e6
    place.put("a.csv")
    sweep(place.platform, place.pipeline)
    place.ahead = 0.0
    sweep(place.platform, place.pipeline)

    assert 2 == place.registry.sweeps.get(P)[0].passes


def test_a_sweep_keeps_away_from_another_intake(place):
    """While another process takes files in, nothing is looked at."""
    place.put("a.csv")
    place.ahead += 1000

    with place.platform.notifications.exclusive(P):
        assert 0 == sweep(place.platform, place.pipeline).looked
    assert 1 == sweep(place.platform, place.pipeline).looked
