"""Intake killed at each of its steps: nothing that was dropped is lost, nothing is taken twice."""

from __future__ import annotations

import pytest
from drilling import DATA, DAYS, NAME

KEY = f"dt={DAYS[0]}/tumours.csv"


@pytest.mark.parametrize(
    ("at", "when", "recorded"),
    [
        pytest.param("notifications.receive", "after", 0, id="taken, not in the ledger"),
        pytest.param("registry.ledger.record", "after", 2, id="in the ledger, not acknowledged"),
        pytest.param("notifications.acknowledge", "after", 2, id="acknowledged, nothing wanted"),
    ],
)
def test_an_object_survives_a_kill_at_each_step_of_its_intake(empty, tables, at, when, recorded):
    """Wherever intake dies, the next one has every object exactly once, and ingests it."""
    empty.land(KEY, tables[DAYS[0]])
    empty.land(f"dt={DAYS[1]}/tumours.csv", tables[DAYS[1]])

    empty.stopped([["take_in"]], at, when).kill()

    assert recorded == sum(empty.registry.ledger.counts(NAME).values())
    empty.do(DATA)
    empty.check_ledger()


def test_a_run_that_was_asked_for_but_never_launched_is_asked_for_again(empty, tables):
    """Written down as wanted, then killed before the launch: the next tick wants it again."""
    empty.land(KEY, tables[DAYS[0]])

    victim = empty.stopped([["take_in"], ["wanted"]], "registry.partitions.update", "after")
    victim.kill()

    request = empty.registry.partitions.get(NAME, DAYS[0]).request
    assert (0, 1) == (request.attempt, request.asked)
    _, wanted, _ = empty.do([["take_in"], ["wanted"], ["ingest"]])
    assert [[DAYS[0], 1]] == wanted  # no run began, so no attempt was used up
    empty.check_ledger()


def test_a_new_version_that_lands_while_intake_is_dead_wins(empty, tables):
    """The version taken before the kill and the one dropped after it are both accounted for."""
    old, new = tables[DAYS[0]], tables[DAYS[1]]
    empty.land(KEY, old)
    empty.stopped([["take_in"]], "registry.ledger.record", "after").kill()

    empty.land(KEY, new)
    empty.do(DATA)

    empty.check_ledger()
    assert {"done": 1, "superseded": 1} == {
        state: count for state, count in empty.registry.ledger.counts(NAME).items() if count
    }
    assert len(new.splitlines()) - 1 == empty.registry.partitions.get(NAME, DAYS[0]).raw.rows


def test_a_second_intake_leaves_the_first_ones_files_alone(empty, tables):
    """While one process takes files in, another takes nothing; after both, all is there once."""
    empty.land(KEY, tables[DAYS[0]])
    first = empty.stopped([["take_in"]], "registry.ledger.record", "before")

    second = empty.do([["take_in"]])
    first.go()

    assert [[0, 0, 0]] == second
    assert [[1, 1, 0]] == first.answer()["done"]
    empty.do([["ingest"]])
    empty.check_ledger()
