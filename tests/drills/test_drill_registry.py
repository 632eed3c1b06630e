"""The registry locked, damaged, lost and put back from an older backup, under real processes."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest
from drilling import ALL, DATA, DAYS, NAME

from ml_control.local.backups import back_up
from ml_control.local.endpoints import LocalEndpoints
from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.services.releases.deployment import answer_golden

DAY = DAYS[0]


def database(home):
    return home.folder / "registry.db"


def by_hand(home, backup):
    """Put a backup in the registry's place without asking anybody."""
    for end in ("-wal", "-shm"):
        database(home).with_name(f"registry.db{end}").unlink(missing_ok=True)
    shutil.copy(backup, database(home).with_name("new.db"))
    database(home).with_name("new.db").replace(database(home))


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_registry_that_stays_locked_is_retryable_and_loses_nothing(published, tables, mode):
    """Whoever wants to write meanwhile is told to try again; afterwards everything is taken in."""
    home = published
    before = home.state()["partitions"]
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.do([["take_in"]])
    home.land(f"dt={DAY}/late.csv", tables[DAYS[2]])
    lasting = home.lasting()
    with closing(sqlite3.connect(database(home), isolation_level=None)) as holder:
        holder.execute(f"BEGIN {mode}")
        for work in ([["take_in"]], [["ingest"]], [["train"]]):
            refused = home.refused(work, patience=0.3)

            assert ("Retryable", str(database(home))) == (refused["kind"], refused["object"])
            assert "locked" in refused["reason"]
        holder.execute("ROLLBACK")

    home.check_intact(lasting)
    assert before == home.state()["partitions"]
    home.do(DATA)
    home.check_ledger()


def overwritten(path):
    """Zeros over everything behind its first page."""
    path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096))


def truncated(path):
    """Half of the file is gone."""
    with path.open("rb+") as stream:
        stream.truncate(path.stat().st_size // 2)


def emptied(path):
    """Nothing is in it."""
    path.write_bytes(b"")


def removed(path):
    """It is not there."""
    path.unlink()


def garbled(path):
    """One digit of each recorded size: SQLite itself sees nothing wrong."""
    data = path.read_bytes()
    assert data.count(b'"rows":1')
    path.write_bytes(data.replace(b'"rows":1', b'"rows":7'))


@pytest.mark.parametrize("damage", [overwritten, truncated, emptied, removed, garbled])
def test_a_damaged_registry_is_refused_until_a_backup_is_put_back(
    published, tables, tmp_path, damage
):
    """No work is done on it and no empty one is made; with the backup everything goes on."""
    home = published
    backup = tmp_path / "backup.db"
    back_up(database(home), backup)
    home.registry.tables.close()
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    lasting = home.lasting()
    damage(database(home))

    for work in ([["take_in"], ["ingest", DAY]], [["train"]]):
        refused = home.start(work).answer()["error"]

        assert "PlatformFailed" == refused["kind"]
        assert "ml-control restore" in refused["next"], refused
    kept = home.lasting()
    assert lasting == {name: kept.get(name) for name in lasting}
    code, said, error = home.command("restore", str(backup))
    assert 0 == code, error
    assert f"{NAME}: " in said
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])  # it may have been recorded since the backup
    home.do(DATA)
    home.check_ledger()


def test_a_lost_log_goes_back_in_time_and_is_made_good(published, tables):
    """The write-ahead log is deleted after a crash: what it held is forgotten together, and the
    files that it was about are taken in again when they come again.
    """
    home = published
    home.registry.tables.close()
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.stopped(DATA, "registry.ledger.settle", "after").kill()
    log = database(home).with_name("registry.db-wal")
    assert log.stat().st_size > 0
    log.unlink()
    log.with_name("registry.db-shm").unlink()

    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.do(DATA)

    home.check_ledger()


def test_serving_goes_on_under_a_damaged_registry_but_nothing_is_routed(served):
    """The live server answers as before; deploying, routing and predicting are refused."""
    home = served
    rollout = home.registry.rollouts.get(NAME)
    entry = rollout.variants[rollout.live]
    proven = require_once_proven(home.platform, home.pipeline, entry.model_version)
    home.registry.tables.close()
    backup = home.folder.with_name("backup.db")
    back_up(database(home), backup)
    overwritten(database(home))

    for work in ([["deploy"]], [["route"]], [["serve"]], [["predict", {}]]):
        refused = home.start(work).answer()["error"]
        assert "PlatformFailed" == refused["kind"], (work, refused)
    assert 1 == len(home.servers())
    assert answer_golden(home.platform, entry.endpoint, proven) > 0

    code, _, error = home.command("restore", str(backup))
    assert 0 == code, error
    home.check_serving()


def test_an_older_backup_is_reconciled_with_what_serves(served, tables):
    """A newer model serves that the restored registry knows nothing of: it is stopped and named,
    never routed to; the earlier champion serves; and what was forgotten is proven again.
    """
    home = served
    first = home.registry.rollouts.get(NAME).champion
    backup = home.folder.with_name("older.db")
    back_up(database(home), backup)
    newer = b"".join(tables[DAYS[2]].splitlines(keepends=True)[:-30])
    home.land(f"dt={DAYS[2]}/tumours.csv", newer)
    home.do(ALL)
    forgotten = home.registry.rollouts.get(NAME).champion
    assert first != forgotten == home.endpoints.describe(f"{NAME}-b").model_version
    home.registry.tables.close()

    code, said, error = home.command("restore", str(backup))

    assert 0 == code, error
    assert f"endpoint {NAME}-b: holds model {forgotten[:12]}" in said
    assert f"model {forgotten[:12]}: is in the lake" in said
    assert "does not know 1 objects of the lake" in said
    assert first == home.registry.rollouts.get(NAME).champion
    assert "Missing" == home.endpoints.describe(f"{NAME}-b").state
    last = list(home.registry.history.decisions(NAME))[-2:]
    assert ["halted", "restored"] == [decision.action for decision in last]
    assert forgotten == last[0].subject
    _, _, asked = home.command("status")
    assert f"unknown: endpoint {NAME}-b: holds model" in asked
    assert "next: restore a newer backup" in asked
    assert first == home.do([["predict", {}]])[0]
    home.puts = {(event.key, event.version) for event in home.registry.ledger.events(NAME)}

    home.land(f"dt={DAYS[2]}/tumours.csv", newer)
    home.do(ALL)

    assert forgotten == home.registry.rollouts.get(NAME).champion
    home.check_ledger()
    home.check_serving()


def test_what_serves_while_the_registry_forgot_everything_is_stopped(served, tmp_path):
    """A registry from before the first model: nothing is live by it, the server is stopped with
    ``Unknown``, and asking for a prediction says the same.
    """
    home = served
    home.registry.tables.close()
    backup = home.folder.with_name("first.db")
    back_up(database(home), backup)
    with closing(sqlite3.connect(backup, isolation_level=None)) as registry:
        for table in ("ab-test-config", "model-metadata"):
            registry.execute(f'DELETE FROM "{table}"')
        registry.execute("DELETE FROM \"control-ledger\" WHERE pk LIKE 'verdict#%'")
    by_hand(home, backup)

    first = home.refused([["serve"]])
    again = home.refused([["predict", {}]])

    assert ["Unknown", "Unknown"] == [first["kind"], again["kind"]]
    assert f"endpoint {NAME}-a" == first["object"] == again["object"]
    assert [] == home.servers()
    assert "Missing" == LocalEndpoints(home.folder / "endpoints").describe(f"{NAME}-a").state
    home.do([["train"], ["deploy"], ["route"]])
    home.check_serving()


def test_a_zombie_cannot_publish_into_a_registry_that_was_put_back(published, tables):
    """The registry is replaced under a run in mid-publish: the command refuses to, and done by
    hand the run ends without a trace, in neither registry.
    """
    home = published
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    backup = home.folder.with_name("before.db")
    back_up(database(home), backup)
    home.registry.tables.close()
    zombie = home.stopped(DATA, "lake.put", "after", match="_manifests/", run="zombie")

    code, _, error = home.command("restore", str(backup))
    assert (1, True) == (code, f"is in use by process {zombie.process.pid}" in error), error
    by_hand(home, backup)
    before = home.state()["partitions"]
    zombie.go()

    assert "Retryable" == zombie.answer()["error"]["kind"]
    assert before == home.state()["partitions"]
    assert [] == list(home.registry.ledger.open_events(NAME))
    home.land(f"dt={DAY}/more.csv", tables[DAYS[1]])
    home.do(DATA)
    home.check_ledger()
