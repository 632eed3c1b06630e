"""Runs killed in mid-write of a partition: what was published stays, and the next run finishes."""

from __future__ import annotations

import pytest
from drilling import DATA, DAYS, NAME, until

DAY = DAYS[0]
STEPS = [  # of admitting and processing, in their order
    ("registry.ledger.claim", "after", ""),  # claimed
    ("lake.put", "before", "_manifests/"),  # parsed, raw manifest not written
    ("lake.put", "after", "_manifests/"),  # raw manifest written, pointer not moved
    ("registry.ledger.settle", "before", ""),  # pointer moved, events not settled
    ("registry.ledger.settle", "after", ""),  # settled, not processed
    ("lake.put", "after", ".parquet"),  # Parquet staged, not audited
    ("lake.put", "before", "/manifest.json"),  # audited, manifest not written
    ("lake.put", "after", "/manifest.json"),  # manifest written, not published
]


def land(home, tables):
    """Into the published day: a new version, another file, and one that is no table."""
    smaller = b"".join(tables[DAY].splitlines(keepends=True)[:-20])
    home.land(f"dt={DAY}/tumours.csv", smaller)
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.land(f"dt={DAY}/bad.csv", b"no,table\n1,2\n")


def test_a_partition_survives_kills_at_every_step_of_its_ingest(published, tables):
    """One run after another is killed, each a step further than the one before. The old data is
    whole all the while, and after the last run everything put is accounted for.
    """
    home = published
    lasting, before = home.lasting(), home.state()["partitions"][DAY]
    land(home, tables)

    for at, when, match in STEPS:
        home.released()
        home.stopped(DATA, at, when, match=match).kill()

        home.check_intact(lasting)
        after = home.state()["partitions"][DAY]
        kept = ("processed", "processed_from", "audit")
        assert [before[name] for name in kept] == [after[name] for name in kept], (at, match)

    home.do(DATA)
    home.check_ledger()
    home.check_intact(lasting)
    counts = home.registry.ledger.counts(NAME)
    assert (3, 1) == (counts["done"], counts["quarantined"])  # the first version was done as well


@pytest.mark.parametrize(
    ("at", "when", "match"),
    [
        pytest.param("lake.put", "after", "_manifests/", id="raw manifest, pointer not moved"),
        pytest.param("registry.ledger.settle", "before", "", id="pointer moved, not settled"),
        pytest.param("lake.put", "after", "/manifest.json", id="audited, not published"),
    ],
)
def test_the_next_run_finishes_what_one_kill_left(published, tables, at, when, match):
    """The moments where two records could disagree, each made good by a single run."""
    home = published
    land(home, tables)
    home.stopped(DATA, at, when, match=match).kill()

    home.do(DATA)

    home.check_ledger()


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
