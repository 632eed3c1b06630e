"""The registry copied, lost, damaged and put back: never silently another one."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from ml_control.errors import Conflict, InvalidSpec, MlControlError, PlatformFailed, Retryable
from ml_control.local.backups import back_up, check, restore
from ml_control.local.registry import SqliteTables
from ml_control.ports import Check, Item, Put
from ml_control.registry import Registry

T = "control-ledger"
PIPELINE = "flowers"


def item(name, value=0):
    return Item("p", name, {"value": value, "text": "x" * 200})


def make(path, count=50):
    """A registry with records and a history."""
    tables = SqliteTables(path)
    tables.write_each([Put(T, item(f"{i:04d}", i), 0) for i in range(count)])
    registry = Registry(tables)
    for number in range(3):
        registry.history.append(PIPELINE, "promoted", f"model {number}", "it passed", actor="run")
    return tables


@pytest.fixture
def place(tmp_path):
    return tmp_path / "registry.db"


def test_a_backup_is_whole_while_writers_go_on(place, tmp_path):
    """Two records that change together are equal in every backup taken meanwhile."""
    tables = SqliteTables(place)
    tables.transact([Put(T, item("one"), 0), Put(T, item("two"), 0)])
    done = threading.Event()

    def write():
        value = 0
        while not done.is_set():
            value += 1
            tables.transact([Put(T, item("one", value), None), Put(T, item("two", value), None)])

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(5):
        back_up(place, tmp_path / f"{number}.db")
    done.set()
    writer.join()

    for number in range(5):
        copy = SqliteTables(tmp_path / f"{number}.db")
        one, two = (copy.get(T, "p", name).body["value"] for name in ("one", "two"))
        copy.close()
        assert one == two


def test_a_backup_replaces_nothing_and_leaves_nothing_half(place, tmp_path):
    """A name that is taken is refused; after any refusal no draft is left."""
    make(place).close()
    target = tmp_path / "copies" / "backup.db"
    back_up(place, target)
    before = target.read_bytes()

    with pytest.raises(Conflict, match="exists already"):
        back_up(place, target)
    with pytest.raises(InvalidSpec, match="no such registry"):
        back_up(tmp_path / "nothing.db", tmp_path / "other.db")

    assert before == target.read_bytes()
    assert [target] == list(target.parent.iterdir())
    assert [PIPELINE] == check(target)


def test_what_is_damaged_is_neither_backed_up_nor_put_back(place, tmp_path):
    """A record whose bytes changed is found by its checksum, in the registry and in a backup."""
    make(place).close()
    good = tmp_path / "good.db"
    back_up(place, good)
    damaged, text = tmp_path / "damaged.db", tmp_path / "text.db"
    text.write_bytes(b"no registry")
    damaged.write_bytes(good.read_bytes().replace(b'"value":7,', b'"value":8,'))
    assert good.read_bytes() != damaged.read_bytes()

    with pytest.raises(PlatformFailed, match="checksum"):
        back_up(damaged, tmp_path / "again.db")
    before = place.read_bytes()
    with pytest.raises(PlatformFailed, match="checksum"):
        restore(place, damaged)
    with pytest.raises(PlatformFailed, match="no whole registry"):
        restore(place, text)

    assert before == place.read_bytes()
    assert not (tmp_path / "again.db").exists()


def test_a_restore_keeps_what_it_replaces(place, tmp_path):
    """What was there before, its log included, can be put back in turn."""
    make(place).close()
    back_up(place, tmp_path / "old.db")
    tables = SqliteTables(place)
    tables.transact([Put(T, item("newer"), 0)])
    tables.close()

    kept = restore(place, tmp_path / "old.db")

    older = SqliteTables(place)
    assert older.get(T, "p", "newer") is None
    older.close()
    restore(place, kept)
    newer = SqliteTables(place)
    assert newer.get(T, "p", "newer") is not None
    newer.close()


@pytest.mark.parametrize("storage", ["local"], indirect=True)
def test_a_registry_in_use_is_not_replaced(place, tmp_path, storage):
    """Another process that has it open is named, and nothing moves."""
    make(place).close()
    back_up(place, tmp_path / "old.db")
    storage.place = place
    process = storage.process(
        "print(tables.get('control-ledger', 'p', '0001').pk, flush=True); sys.stdin.read()"
    )
    assert "p\n" == process.stdout.readline()

    with pytest.raises(Conflict, match=f"process {process.pid}"):
        restore(place, tmp_path / "old.db")

    assert [] == list(tmp_path.glob("registry.db.replaced*"))
    process.communicate(timeout=20)
    assert restore(place, tmp_path / "old.db") is not None


@pytest.mark.parametrize("how", ["removed", "emptied", "without tables"])
def test_a_lost_registry_is_not_made_anew_beside_its_data(place, tmp_path, how):
    """Where the lake holds something an absent or empty registry is refused, else it is new."""
    lake = tmp_path / "lake"
    (lake / "raw").mkdir(parents=True)
    SqliteTables(place, data=lake).close()
    (lake / "raw" / PIPELINE).mkdir()
    place.unlink()
    if how == "emptied":
        place.touch()
    if how == "without tables":
        with closing(sqlite3.connect(place)) as connection:
            connection.execute("CREATE TABLE other (a)")

    with pytest.raises(PlatformFailed, match="what an earlier registry was about") as refusal:
        SqliteTables(place, data=lake)

    assert "ml-control restore" in refusal.value.next
    assert (how == "removed") == (not place.exists())
    (lake / "raw" / PIPELINE).rmdir()
    SqliteTables(place, data=lake).close()


def test_a_file_put_in_the_registrys_place_is_noticed_by_who_uses_it(place, tmp_path):
    """What was decided on the old file is not written to either; then the new one is read."""
    tables = make(place)
    back_up(place, tmp_path / "old.db")
    tables.transact([Put(T, item("newer"), 0)])
    (tmp_path / "old.db").replace(place)

    with pytest.raises(Retryable, match="was replaced"):
        tables.transact([Put(T, item("lost"), 0)])

    assert tables.get(T, "p", "lost") is None
    tables.transact([Put(T, item("kept"), 0)])
    assert SqliteTables(place).get(T, "p", "kept") is not None
    place.unlink()
    with pytest.raises(Retryable, match="was replaced or removed"):
        tables.get(T, "p", "kept")
    with pytest.raises(PlatformFailed, match="not there any more"):
        tables.get(T, "p", "kept")
    assert not place.exists()


def test_a_zombie_from_before_a_restore_finds_no_lease_of_its_own(place):
    """Lease numbers are given out again after a restore; the fence of the zombie holds all the
    same, for its nonce is nobody else's.
    """
    now = [1000.0]
    registry = Registry(SqliteTables(place), lease_seconds=1.0, clock=lambda: now[0])
    back_up(place, place.with_name("old.db"))
    zombie = registry.leases.acquire(PIPELINE, "deploy", "zombie")
    registry.tables.close()
    restore(place, place.with_name("old.db"))
    successor = registry.leases.acquire(PIPELINE, "deploy", "successor")

    assert zombie.token == successor.token
    with pytest.raises(Conflict):
        registry.tables.transact([registry.leases.fence(zombie), Put(T, item("zombie"), 0)])
    with pytest.raises(Conflict):
        registry.leases.renew(zombie)
    registry.leases.release(zombie)
    registry.tables.transact([registry.leases.fence(successor), Put(T, item("mine"), 0)])


def test_a_registry_of_an_earlier_version_is_read_and_gets_checksums(place):
    """The old form of the tables, without checksums, opens as it is; what is written has one."""
    with closing(sqlite3.connect(place)) as connection, connection:
        for name in ("model-metadata", "training-metrics", "ab-test-config", T):
            connection.executescript(
                f'CREATE TABLE "{name}" (pk TEXT NOT NULL, sk TEXT NOT NULL, idx TEXT, '
                "version INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (pk, sk)) "
                f'WITHOUT ROWID; CREATE INDEX "{name}_idx" ON "{name}" (idx, sk) '
                "WHERE idx IS NOT NULL;"
            )
        connection.execute(f"INSERT INTO \"{T}\" VALUES ('p', 'old', NULL, 3, '{{\"a\": 1}}')")

    tables = SqliteTables(place)

    assert ({"a": 1}, 3) == (tables.get(T, "p", "old").body, tables.get(T, "p", "old").version)
    tables.transact([Check(T, "p", "old", {"a": 1}), Put(T, item("new"), 0)])
    tables.transact([Put(T, Item("p", "old", {"a": 2}), 3)])
    with closing(sqlite3.connect(place)) as connection:
        sums = connection.execute(f'SELECT sum IS NOT NULL FROM "{T}"').fetchall()
    assert [(1,), (1,)] == sums


@pytest.mark.parametrize("column", ["idx", "body", "sum"])
def test_a_record_changed_on_disk_is_refused(place, column):
    """Any changed part of a record is found when it is read, though SQLite sees nothing wrong."""
    tables = make(place)
    change = {"idx": "'pending#x'", "body": "'{\"value\":1}'", "sum": "sum + 1"}[column]
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute(f"UPDATE \"{T}\" SET {column} = {change} WHERE sk = '0007'")

    with pytest.raises(PlatformFailed, match="p 0007") as refusal:
        tables.get(T, "p", "0007")
    with pytest.raises(MlControlError):
        list(tables.query(T, "p"))

    assert "restore" in refusal.value.next
    assert 6 == tables.get(T, "p", "0006").body["value"]
