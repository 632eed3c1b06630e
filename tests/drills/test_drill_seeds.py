"""The whole path from files to a live model, killed at writes chosen by seeds."""

from __future__ import annotations

import random

import pytest
from drilling import ALL, DAYS, NAME

KILLS = 20
FILES = 8  # that the rows of the later days are split into
LEASE = "Item(pk='lease#"  # heartbeats come when they come, so they are not counted
POINTS = [  # (what is counted, what is not, the highest number, how often it is chosen)
    ("registry.tables.transact", LEASE, 9, 5),
    ("lake.put", "", 6, 4),
    ("trainer.train", "", 1, 1),
    ("endpoints._start", "", 1, 1),
    ("endpoints.deploy", "", 2, 1),
]


def point(seed):
    """Where the process of a seed is killed."""
    choose = random.Random(seed)
    at, avoid, most, _ = choose.choices(POINTS, [weight for *_, weight in POINTS])[0]
    when = choose.choice(["before", "after"])
    return {"at": at, "avoid": avoid, "when": when, "nth": choose.randint(1, most)}


def small(tables):
    """Small tables: each row of the later days is in one of them."""
    lines = [line for day in DAYS[1:] for line in tables[day].splitlines(keepends=True)[1:]]
    header = tables[DAYS[0]].splitlines(keepends=True)[0]
    return [header + b"".join(lines[i::FILES]) for i in range(FILES)]


@pytest.mark.timeout(600)
def test_processes_killed_at_random_writes_lose_nothing_and_serve_only_what_was_proven(
    empty, tables, served_template
):
    """One process after another dies somewhere between intake and routing, and the next goes on
    from there. Whenever one comes to the end, every object is accounted for and what serves is
    proven; the first model is the very one of an undisturbed run.
    """
    home, files = empty, small(tables)
    home.land(f"dt={DAYS[0]}/tumours.csv", tables[DAYS[0]])
    seed = killed = ends = 0
    while killed < KILLS:
        stop, seed = point(seed), seed + 1
        try:
            home.released()
            process = home.start(ALL, f"seed {seed - 1}", stop=stop)
            if process.stands():
                process.kill()
                killed += 1
                continue
            assert "done" in process.answer(), process.said
            ends += 1
            check(home, ends, served_template.first)
            home.land(f"dt={DAYS[0]}/more-{ends % 3}.csv", files[ends % FILES])
        except AssertionError as error:
            raise AssertionError(f"seed {seed - 1}, {stop}: {error}") from error

    home.do([["cli", "run", NAME]])
    check(home, ends + 1, served_template.first)


def check(home, ends, first):
    """What must hold whenever a process came to the end."""
    home.check_ledger()
    home.check_serving()
    models = home.registry.models.all(NAME)
    assert ends == len(models)
    assert first == models[-1].version
    assert models[0].version == home.registry.rollouts.get(NAME).champion
