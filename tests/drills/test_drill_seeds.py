"""The whole path from a file to a live model, killed at a write chosen by a seed."""

from __future__ import annotations

import random

import pytest
from drilling import ALL, DAYS, NAME

SEEDS = (11,)  # add one when a crash was found that the other drills miss
LEASE = "Item(pk='lease#"  # heartbeats come when they come, so they are not counted
WRITES = 10  # of the registry, on the path of one file


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_at_any_write_of_the_registry_changes_nothing_in_the_end(
    empty, tables, served_template, seed
):
    """Killed at some write, then ``ml-control run``: the very model of an undisturbed run."""
    home = empty
    nth, when = (
        random.Random(seed).randint(1, WRITES),
        random.Random(seed).choice(["before", "after"]),
    )
    point = f"seed {seed}: {when} write {nth}"
    home.land(f"dt={DAYS[0]}/tumours.csv", tables[DAYS[0]])
    stop = {"at": "registry.tables.transact", "when": when, "nth": nth, "avoid": LEASE}
    victim = home.start(ALL, "victim", stop=stop)
    assert victim.stands(), f"{point}: {victim.said}"
    victim.kill()
    lasting = home.lasting()

    home.do([["cli", "run", NAME]])

    home.check_intact(lasting)
    home.check_ledger()
    home.check_serving()
    assert served_template.first == home.registry.rollouts.get(NAME).champion, point
    assert 1 == len(home.registry.models.all(NAME)), point
