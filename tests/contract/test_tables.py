"""What every adapter of ``ports.Tables`` promises, always seen by two clients at once."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_control.errors import Conflict, MlControlError, PlatformFailed, Retryable
from ml_control.local.registry import SqliteTables
from ml_control.ports import TABLES, Check, Item, Put

T = "control-ledger"

COUNT_UP = """
from ml_control.errors import Conflict
print("ready", flush=True)
left = int(sys.stdin.readline())
while left:
    item = tables.get("control-ledger", "p", "n")
    fresh = Item("p", "n", {"n": (item.body["n"] if item else 0) + 1})
    try:
        tables.transact([Put("control-ledger", fresh, item.version if item else 0)])
    except Conflict:
        continue
    left -= 1
"""

LOCAL = pytest.mark.parametrize("storage", ["local"], indirect=True)  # about its one file

STOP_HALF_WAY = """
def writes():
    yield Put("control-ledger", Item("p", "half", {}), 0)
    print("half", flush=True)
    sys.stdin.readline()
    yield Put("control-ledger", Item("p", "whole", {}), 0)
tables.transact(writes())
print("done", flush=True)
"""


def item(sk="s", pk="p", index=None, **body):
    return Item(pk, sk, body, index)


def keys(items):
    return [found.sk for found in items]


def numbered(storage, count):
    """Sort keys of two leading digits for the page, then the place in it."""
    return [f"{i:0{len(str(storage.page)) + 1}d}" for i in range(count)]


def fill(tables, sks, pk="p", index=None):
    assert [True] * len(sks) == tables.write_each([Put(T, item(sk, pk, index), 0) for sk in sks])


def test_an_item_can_be_created_once(two):
    """Of two clients that create the same item, the second is told, and the first one's stays."""
    one, other = two
    one.transact([Put(T, item(who="one"), 0)])

    with pytest.raises(Conflict) as refusal:
        other.transact([Put(T, item(who="other"), 0)])

    assert "p s" == refusal.value.object
    assert Item("p", "s", {"who": "one"}, None, 1) == other.get(T, "p", "s")


def test_a_write_over_a_version_that_moved_is_refused(two):
    """Compare-and-set takes the version last read and no other, and counts up by one."""
    one, other = two
    one.transact([Put(T, item(n=1), 0)])
    one.transact([Put(T, item(n=2), 1)])

    for stale in (0, 1, 3):
        with pytest.raises(Conflict):
            other.transact([Put(T, item(n=9), stale)])

    assert Item("p", "s", {"n": 2}, None, 2) == other.get(T, "p", "s")


def test_a_write_over_an_absent_item_is_refused(two):
    """An update that expects a version never creates the item."""
    with pytest.raises(Conflict):
        two[0].transact([Put(T, item(), 1)])

    assert two[1].get(T, "p", "s") is None


def test_an_unconditional_write_always_wins_and_still_counts(two):
    """``expect=None`` creates or replaces, and the version grows so that others notice."""
    one, other = two
    one.transact([Put(T, item(n=1), None)])
    other.transact([Put(T, item(n=2), None)])

    assert Item("p", "s", {"n": 2}, None, 2) == one.get(T, "p", "s")


def test_a_transaction_is_all_or_nothing(two):
    """One failed condition, wherever it stands, undoes every write in every table."""
    one, other = two
    one.transact([Put(T, item("taken"), 0)])
    fresh = [Put(table, item("new"), 0) for table in TABLES]

    for place in range(len(fresh) + 1):
        with pytest.raises(Conflict) as refusal:
            one.transact([*fresh[:place], Put(T, item("taken"), 0), *fresh[place:]])
        assert "p taken" == refusal.value.object
        assert [None] * len(TABLES) == [other.get(table, "p", "new") for table in TABLES]

    one.transact(fresh)
    assert all(other.get(table, "p", "new") for table in TABLES)


def test_a_check_fences_the_writes_beside_it(two):
    """Writes go through only while the checked item has exactly these values."""
    one, other = two
    other.transact([Put(T, item("lease", token=4, holder="x", gone=None), 0)])
    passing = Check(T, "p", "lease", {"token": 4, "gone": None})
    one.transact([passing, Put(T, item("first"), 0)])
    other.transact([Put(T, item("lease", token=5, holder="y"), 1)])

    with pytest.raises(Conflict) as refusal:
        one.transact([Put(T, item("second"), 0), passing])

    assert "p lease" == refusal.value.object
    assert (True, None) == (other.get(T, "p", "first") is not None, other.get(T, "p", "second"))


@pytest.mark.parametrize("equals", [{}, {"token": 1}, {"token": None}])
def test_a_check_of_an_absent_item_fails(two, equals):
    """A check requires that the item exists, whatever values it asks for."""
    with pytest.raises(Conflict):
        two[0].transact([Check(T, "p", "lease", equals), Put(T, item(), 0)])

    assert two[1].get(T, "p", "s") is None


def test_each_write_on_its_own(two):
    """``write_each`` says for each write whether it held, and one refusal undoes no other."""
    one, other = two
    one.transact([Put(T, item("00003"), 0)])
    writes = [Put(T, item(f"{i:05d}"), 0) for i in range(250)] + [Put(T, item("00001"), 1)]

    expected = [i != 3 for i in range(250)] + [True]
    assert expected == other.write_each(writes)
    assert 250 == len(list(one.query(T, "p")))
    assert [] == other.write_each([])


def test_writes_of_one_item_are_made_in_their_order(two):
    """What comes later in ``write_each`` finds what came earlier, and none is made twice."""
    one, other = two
    writes = [Put(T, item(n=n, index="i" if n % 2 else None), n) for n in range(5)]

    assert [*[True] * 5, False] == one.write_each([*writes, Put(T, item(n=9), 2)])
    assert Item("p", "s", {"n": 4}, None, 5) == other.get(T, "p", "s")
    assert 0 == other.count_index(T, "i")


def test_queries_go_on_after_the_first_page(storage, two):
    """Two pages and a half come whole and in order, both ways, by prefix and up to a limit."""
    one, other = two
    page, every = storage.page, numbered(storage, 5 * storage.page // 2)
    fill(one, every)
    fill(one, every[:3], pk="another")

    assert every == keys(other.query(T, "p"))
    assert every[::-1] == keys(other.query(T, "p", reverse=True))
    assert every[page : 2 * page] == keys(other.query(T, "p", prefix="01"))
    assert every[: 2 * page - 1 : -1] == keys(other.query(T, "p", prefix="02", reverse=True))
    for limit in (0, 1, page, page + 1, len(every) - 1, len(every), 9999):
        assert every[:limit] == keys(other.query(T, "p", limit=limit))
        assert every[::-1][:limit] == keys(other.query(T, "p", limit=limit, reverse=True))
    assert [] == keys(other.query(T, "absent"))
    assert [] == keys(other.query("model-metadata", "p"))


def test_a_reader_half_way_keeps_its_place(storage, two):
    """What a writer changes behind a reader's page neither repeats nor hides other items."""
    one, other = two
    page, every = storage.page, numbered(storage, 3 * storage.page // 2)
    fill(one, every)
    reading = other.query(T, "p")
    first = [next(reading).sk for _ in range(page)]
    late = f"{every[page + page // 5]}a"
    one.transact([Put(T, item(f"{every[0]}a"), 0), Put(T, item(late), 0)])

    rest = keys(reading)
    assert every[:page] == first
    assert sorted([*every[page:], late]) == rest


def test_the_index_lists_and_counts(storage, two):
    """Items with one index value are listed over all partition keys, sorted, and counted."""
    one, other = two
    page, every = storage.page, numbered(storage, 13 * storage.page // 10)
    fill(one, every, pk="p", index="open")
    fill(one, every, pk="q", index="open")
    fill(one, every[:4], pk="r", index="done")
    fill(one, every[:4], pk="s")
    twice = [sk for sk in every for _ in range(2)]

    assert twice == keys(other.query_index(T, "open"))
    assert twice[: page + 1] == keys(other.query_index(T, "open", limit=page + 1))
    assert twice[2 * page :] == keys(other.query_index(T, "open", prefix="01"))
    found = {(row.pk, row.sk) for row in other.query_index(T, "open")}
    assert len(twice) == len(found) == other.count_index(T, "open")
    assert (4, 0) == (other.count_index(T, "done"), other.count_index(T, "absent"))
    assert 0 == other.count_index("model-metadata", "open")


def test_an_item_moves_between_index_values(two):
    """An update that changes or drops the index value moves the item at once for everybody."""
    one, other = two
    one.transact([Put(T, item(index="open"), 0)])
    other.transact([Put(T, item(index="done"), 1)])
    assert (0, 1) == (one.count_index(T, "open"), one.count_index(T, "done"))

    other.transact([Put(T, item(), None)])
    assert (0, []) == (one.count_index(T, "done"), keys(one.query_index(T, "done")))


def test_no_update_is_lost_between_four_processes(storage, two):
    """Four processes that count up by compare-and-set lose not one step."""
    processes = [storage.process(COUNT_UP) for _ in range(4)]
    assert ["ready\n"] * 4 == [process.stdout.readline() for process in processes]
    for process in processes:
        process.stdin.write(f"{storage.page // 20}\n")
        process.stdin.flush()

    count = 4 * (storage.page // 20)
    assert [0] * 4 == [process.wait(60) for process in processes]
    assert Item("p", "n", {"n": count}, None, count) == two[0].get(T, "p", "n")


def test_threads_share_a_client(storage, two):
    """Two clients used by eight threads create each item exactly once."""
    count = storage.page // 10
    start = threading.Barrier(8)

    def create(number):
        start.wait()
        client = two[number % 2]
        won = [client.write_each([Put(T, item(f"{i}", who=number), 0)])[0] for i in range(count)]
        client.close()
        return sum(won)

    with ThreadPoolExecutor(8) as pool:
        assert count == sum(pool.map(create, range(8)))


def test_a_killed_writer_leaves_nothing(storage, two):
    """A process killed between two writes of a transaction leaves neither, and no lock."""
    process = storage.process(STOP_HALF_WAY)
    assert "half\n" == process.stdout.readline()
    assert two[0].get(T, "p", "half") is None
    process.kill()
    process.wait()

    two[0].transact([Put(T, item("half", by="another"), 0)])
    assert {"by": "another"} == two[1].get(T, "p", "half").body
    assert two[1].get(T, "p", "whole") is None


def test_a_writer_waits_for_its_turn(storage, two):
    """A second writer waits for the transaction before it instead of failing."""
    process = storage.process(STOP_HALF_WAY)
    assert "half\n" == process.stdout.readline()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(two[0].transact, [Put(T, item("after"), 0)])
        process.stdin.write("go on\n")
        process.stdin.flush()
        waiting.result(20)
    assert "done\n" == process.stdout.readline()

    assert ["after", "half", "whole"] == keys(two[1].query(T, "p"))


# What only the local adapter can suffer: one file, and whoever damages or holds it.


@LOCAL
def test_a_registry_locked_for_too_long_is_retryable(storage, monkeypatch):
    """A writer that waited in vain is told to try again; readers are not held up."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.05}))
    client = storage.client()
    process = storage.process(STOP_HALF_WAY)
    assert "half\n" == process.stdout.readline()

    with pytest.raises(Retryable, match="locked"):
        client.transact([Put(T, item(), 0)])
    with pytest.raises(Retryable, match="locked"):
        client.write_each([Put(T, item(), 0)])
    assert [] == keys(client.query(T, "p"))


def test_a_file_that_is_no_registry_is_refused(tmp_path):
    """Opening garbage, or a folder in the file's place, names the file and the way out."""
    garbage, folder = tmp_path / "garbage.db", tmp_path / "folder.db"
    garbage.write_bytes(b"not a database at all" * 500)
    folder.mkdir()

    for path in (garbage, folder):
        with pytest.raises(PlatformFailed) as refusal:
            SqliteTables(path)
        assert str(path) == refusal.value.object
        assert refusal.value.next
    assert b"not a database at all" * 500 == garbage.read_bytes()


def test_a_damaged_file_gives_a_typed_error(tmp_path):
    """Whichever page is overwritten, a reader gets the right answer or a typed refusal."""
    path = tmp_path / "registry.db"
    tables = SqliteTables(path)
    fill(tables, [f"{i:05d}" for i in range(400)])
    tables.close()
    whole, size = path.read_bytes(), 4096
    refusals = []
    for page in range(len(whole) // size):
        path.write_bytes(whole[: page * size] + b"\xa5" * size + whole[(page + 1) * size :])
        damaged = None
        try:
            damaged = SqliteTables(path)
            assert 400 == len(keys(damaged.query(T, "p")))
        except MlControlError as error:
            refusals.append(error.kind)
        finally:
            if damaged is not None:
                damaged.close()

    assert {"PlatformFailed"} == set(refusals)
    assert len(refusals) >= 3


@LOCAL
def test_a_record_that_is_no_json_is_named(two, storage):
    """A body damaged by hand is refused by its key, in reads and in checks."""
    one, other = two
    one.transact([Put(T, item("bad"), 0)])
    with sqlite3.connect(storage.place) as connection:
        connection.execute(f"UPDATE \"{T}\" SET body = '{{'")
    connection.close()

    with pytest.raises(PlatformFailed, match="p bad"):
        other.get(T, "p", "bad")
    with pytest.raises(PlatformFailed, match="p bad"):
        other.transact([Check(T, "p", "bad", {"a": 1}), Put(T, item(), 0)])
    assert other.get(T, "p", "s") is None
