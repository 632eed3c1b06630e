"""A process that was frozen past its lease wakes up: nothing that it still writes may count."""

from __future__ import annotations

import pytest
from drilling import DATA, DAYS, NAME

DAY = DAYS[0]


def frozen(home, work, at, **stop):
    """A process frozen at a point, heartbeat and all, until its leases have expired."""
    zombie = home.stopped(work, at, run="zombie", **stop)
    zombie.pause()
    home.released()
    return zombie


@pytest.mark.parametrize(
    ("at", "match"),
    [
        pytest.param("lake.put", "_manifests/", id="raw"),
        pytest.param("lake.put", "/manifest.json", id="processed"),
    ],
)
def test_a_zombie_cannot_publish_over_its_successor(published, tables, at, match):
    """The zombie is refused with Conflict; its successor's manifests stay, and lose no object."""
    home = published
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    zombie = frozen(home, DATA, at, when="before", match=match)
    home.land(f"dt={DAY}/tumours.csv", tables[DAYS[2]])
    home.do(DATA, "successor")
    newer = home.state()["partitions"]

    zombie.go()

    assert "Conflict" == zombie.answer()["error"]["kind"]
    assert newer == home.state()["partitions"]
    assert "successor" == newer[DAY]["raw"]["run"] == newer[DAY]["processed"]["run"]
    home.check_ledger()


def test_a_zombie_that_takes_events_in_late_loses_none_of_them(published, tables):
    """Events that a zombie claims without the lease stay open for the next run."""
    home = published
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    zombie = frozen(home, DATA, "registry.ledger.claim", when="before")
    home.do(DATA, "successor")
    home.land(f"dt={DAY}/late.csv", tables[DAYS[2]])
    home.do([["take_in"]])

    zombie.go()

    assert "Conflict" == zombie.answer()["error"]["kind"]
    claimed = list(home.registry.ledger.open_events(NAME, DAY))
    assert [(f"{NAME}/dt={DAY}/late.csv", "claimed", "zombie")] == [
        (event.key, event.state, event.run) for event in claimed
    ]
    home.do(DATA)
    home.check_ledger()


def test_a_zombie_trainer_cannot_name_the_candidate(published):
    """Its successor's candidate stays; the zombie's registration is refused with Conflict."""
    home = published
    zombie = frozen(home, [["train"]], "registry.models.register", when="before")
    home.do([["train"]], "successor")
    before = home.state()

    zombie.go()

    assert "Conflict" == zombie.answer()["error"]["kind"]
    assert before == home.state()
    assert "successor" == home.registry.models.candidate(NAME).run


def test_a_zombie_deployer_cannot_move_traffic(served):
    """A routing decision taken before the freeze is refused; its successor's Rollout stays."""
    home = served
    older = home.registry.models.all(NAME)[1].version
    home.do([["deploy"]])
    zombie = frozen(home, [["route"]], "registry.rollouts.write", when="before")
    home.do([["deploy"], ["route"]], "successor")
    before = home.registry.rollouts.get(NAME)

    zombie.go()

    assert "Conflict" == zombie.answer()["error"]["kind"]
    assert before == home.registry.rollouts.get(NAME)
    assert older != before.champion
    home.check_serving()


def test_a_zombie_deployer_does_not_replace_what_went_live(served):
    """It wakes before it starts a server, on the variant that went live meanwhile: it is refused
    before anything is started, and the server with the traffic is the same as before.
    """
    home = served
    second = home.registry.models.all(NAME)[1].version
    work = [["deploy", second]]
    zombie = frozen(home, work, "endpoints.deploy", when="before")
    home.do([["deploy"], ["route"]], "successor")
    before = home.registry.rollouts.get(NAME)
    live = home.endpoints.describe(before.variants[before.live].endpoint)

    zombie.go()

    assert "Conflict" == zombie.answer()["error"]["kind"]
    assert before == home.registry.rollouts.get(NAME)
    assert live == home.endpoints.describe(live.name)
    home.check_serving()


def test_a_registry_older_than_its_endpoints_catches_up(served):
    """After a restore from a backup the endpoints have seen later tokens: one attempt is refused,
    and the next one serves.
    """
    home = served
    rollout = home.registry.rollouts.get(NAME)
    name = rollout.variants[rollout.live].endpoint
    (home.endpoints._root / name / "token.json").write_text('{"token": 1000}')
    home.endpoints.stop(name)

    with pytest.raises(AssertionError, match="caught up"):
        home.do([["serve"]])
    home.do([["serve"]])

    assert "InService" == home.endpoints.describe(name).state
    home.check_serving()
