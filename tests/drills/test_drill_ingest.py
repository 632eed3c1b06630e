"""Runs killed in mid-write of a partition: what was published stays, and the next run finishes."""

from __future__ import annotations

import pytest
from drilling import DATA, DAYS, NAME, until

DAY = DAYS[0]
STEPS = [
    pytest.param("registry.ledger.claim", "after", "", id="claimed"),
    pytest.param("lake.put", "before", "_manifests/", id="parsed, raw manifest not written"),
    pytest.param("lake.put", "after", "_manifests/", id="raw manifest written, pointer not moved"),
    pytest.param("registry.ledger.settle", "before", "", id="pointer moved, events not settled"),
    pytest.param("registry.ledger.settle", "after", "", id="settled, not processed"),
    pytest.param("lake.put", "after", ".parquet", id="Parquet staged, not audited"),
    pytest.param("lake.put", "before", "/manifest.json", id="audited, manifest not written"),
    pytest.param("lake.put", "after", "/manifest.json", id="manifest written, not published"),
]


def land(home, tables):
    """Into the published day: a new version, another file, and one that is no table."""
    smaller = b"".join(tables[DAY].splitlines(keepends=True)[:-20])
    home.land(f"dt={DAY}/tumours.csv", smaller)
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.land(f"dt={DAY}/bad.csv", b"no,table\n1,2\n")


@pytest.mark.parametrize(("at", "when", "match"), STEPS)
def test_a_partition_survives_a_kill_at_each_step_of_its_ingest(published, tables, at, when, match):
    """After the kill the old data is whole; after the next run everything put is accounted for."""
    home = published
    lasting, before = home.lasting(), home.state()["partitions"][DAY]
    land(home, tables)

    home.stopped(DATA, at, when, match=match).kill()

    home.check_intact(lasting)
    after = home.state()["partitions"][DAY]
    assert before["processed"] == after["processed"]
    assert before["audit"] == after["audit"]
    home.do(DATA)
    home.check_ledger()
    home.check_intact(lasting)
    counts = home.registry.ledger.counts(NAME)
    assert (3, 1) == (counts["done"], counts["quarantined"])  # the first version was done as well


def test_events_claimed_by_a_dead_run_are_not_counted_as_finished(published, tables):
    """A claim of a killed run is open work: it is listed, and the next tick asks for a run."""
    home = published
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.stopped(DATA, "registry.ledger.claim", "after", run="dead").kill()

    claimed = list(home.registry.ledger.open_events(NAME))

    assert [("claimed", "dead")] == [(event.state, event.run) for event in claimed]
    wanted, _ = home.do([["wanted"], ["ingest"]])
    assert [[DAY, 1]] == wanted
    home.check_ledger()


def test_a_live_run_keeps_others_out_however_long_it_takes(published, tables):
    """The heartbeat keeps a slow run's lease: a second run is refused with the holder's name."""
    home = published
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    slow = home.stopped(DATA, "lake.put", "after", match="_manifests/", run="slow")
    taken = home.registry.leases.holder(NAME, f"partition {DAY}")

    until(
        lambda: (
            home.registry.leases.holder(NAME, f"partition {DAY}").expires_at
            > taken.expires_at + 1.0
        ),
        "a lease renewed past its first expiry",
        10,
    )
    refused = home.start([["ingest"]], "fast").answer()["error"]
    slow.go()

    assert ("Conflict", "slow") == (refused["kind"], refused["holder"])
    assert "done" in slow.answer()
    home.check_ledger()
