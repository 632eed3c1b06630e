"""The contract of ``ports.Stream``, run with two clients at once on every platform."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import pytest
from streams import NAME, RETRY, TRIES, Aws, Clock, Local, data_of, record

from ml_control.errors import BadObject, Conflict, InvalidSpec, PlatformFailed, Retryable
from ml_control.local.stream import SqliteStream
from ml_control.ports import MAX_STREAM_BYTES, StreamState


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "stream"


@pytest.fixture(params=[Local, Aws], ids=["local", "aws"])
def place(request, root, clock):
    """Each platform's stream, with any number of clients and processes."""
    found = request.param(root, clock)
    yield found
    found.end()


@pytest.fixture
def two(place):
    """Two clients of each platform's stream."""
    clients = [place.client() for _ in range(2)]
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def local_two(root, clock):
    """Two clients of the local stream: what only its file can promise."""
    clients = [SqliteStream(root, TRIES, RETRY, clock) for _ in range(2)]
    yield clients
    for client in clients:
        client.close()


def test_what_one_client_puts_another_reads_in_order(two):
    """Sequence numbers grow, and reading gives records as they were put."""
    first, second = two
    given = first.put([record("a", b"1"), record("b", b"2")])
    given += second.put([record("a", b"3")])

    found = first.read(NAME, 10)

    assert sorted(set(given)) == given
    assert given == [one.sequence for one in found]
    assert [b"1", b"2", b"3"] == data_of(found)
    assert ["a", "b", "a"] == [one.key for one in found]
    assert found == second.read(NAME, 10)
    assert found[:2] == second.read(NAME, 2)


def test_a_stream_that_nobody_put_into_is_empty(two, root):
    """Looking makes nothing, so that looking often costs nothing."""
    first, _ = two

    assert [] == first.read(NAME, 10)
    assert [] == first.parked(NAME)
    assert 0 == first.replay(NAME)
    assert StreamState() == first.state(NAME)
    assert not root.exists()


def test_records_of_several_pipelines_do_not_mix(two):
    """Each pipeline has its own records, and numbers are given in the order of the records."""
    first, second = two
    given = first.put([record("a", b"1"), record("a", b"2", "other"), record("a", b"3")])

    assert [b"1", b"3"] == data_of(second.read(NAME, 10))
    assert [b"2"] == data_of(second.read("other", 10))
    assert given[0] < given[2]


def test_numbers_of_a_pipeline_follow_each_other(local_two):
    """On this machine, where each pipeline has a file of its own."""
    first, _ = local_two
    given = first.put([record("a", b"1"), record("a", b"2", "other"), record("a", b"3")])

    assert given[2] == given[0] + 1


def test_settled_records_never_come_again(two):
    """Also not to another client, and settling twice is harmless."""
    first, second = two
    given = first.put([record("a", b"%d" % i) for i in range(5)])
    first.settle(NAME, given[:2] + given[3:4], {})
    first.settle(NAME, given[:2], {})

    assert [b"2", b"4"] == data_of(second.read(NAME, 10))
    assert StreamState(2, 0, 0, given[1], 1_780_000_000.0) == second.state(NAME)


def test_what_is_not_reported_comes_again_at_once(two):
    """A consumer that died after reading has taken nothing away."""
    first, second = two
    first.put([record("a", b"1")])
    first.read(NAME, 10)
    second.settle(NAME, [], {})

    assert [b"1"] == data_of(second.read(NAME, 10))


def test_a_failed_record_holds_up_its_key_and_no_other(two, clock):
    """Order is kept for each key: later records of a failed one's key wait with it."""
    first, second = two
    given = first.put([record("a", b"1"), record("b", b"2"), record("a", b"3"), record("c", b"4")])
    first.settle(NAME, [], {given[0]: "no answer"})

    assert [b"2", b"4"] == data_of(second.read(NAME, 10))
    assert 1 == second.state(NAME).failing
    second.settle(NAME, [given[1], given[3]], {})
    assert [] == second.read(NAME, 10)
    clock.now += RETRY
    assert [b"1", b"3"] == data_of(second.read(NAME, 10))


def test_each_try_waits_longer_and_the_last_one_parks(two, clock):
    """Then the reason and the number of tries are kept, and the key goes on."""
    first, second = two
    given = first.put([record("a", b"1"), record("a", b"2")])
    for again in range(1, TRIES):
        assert [] == first.settle(NAME, [], {given[0]: f"reason {again}"})
        clock.now += RETRY * 2 ** (again - 1) - 0.01
        assert [] == second.read(NAME, 10)
        clock.now += 0.01
        assert [b"1", b"2"] == data_of(second.read(NAME, 10))

    assert [given[0]] == first.settle(NAME, [], {given[0]: "the last reason"})

    (parked,) = second.parked(NAME)
    assert (b"1", "the last reason", TRIES) == (parked.record.data, parked.reason, parked.tries)
    assert [b"2"] == data_of(second.read(NAME, 10))
    assert (1, 0, 1) == tuple(second.state(NAME).__dict__.values())[:3]


def test_a_clock_that_is_set_back_holds_nothing_up(two, clock):
    """A try that lies in the future was before the change: the record comes now."""
    first, second = two
    given = first.put([record("a", b"1")])
    first.settle(NAME, [], {given[0]: "no answer"})
    clock.now -= 3600

    assert [b"1"] == data_of(second.read(NAME, 10))


def test_poison_is_parked_at_once_and_blocks_nothing(two):
    """Trying again cannot help, so later records of its key come at once."""
    first, second = two
    given = first.put([record("a", b"1"), record("a", b"2")])

    assert [given[0]] == first.settle(NAME, [], {}, {given[0]: "BadObject: no JSON"})
    assert [] == second.settle(NAME, [], {}, {given[0]: "again"})

    assert [b"2"] == data_of(second.read(NAME, 10))
    assert ["BadObject: no JSON"] == [one.reason for one in second.parked(NAME)]
    assert 1 == second.state(NAME).parked


def test_replayed_records_take_their_places_again(two, clock):
    """Same sequence numbers, so the same derived ids; new tries; before what came later."""
    first, second = two
    given = first.put([record("a", b"1"), record("a", b"2")])
    first.settle(NAME, [], {}, {given[0]: "bad"})

    assert 1 == second.replay(NAME)
    assert 0 == first.replay(NAME)

    assert given == [one.sequence for one in first.read(NAME, 10)]
    assert [] == first.parked(NAME)
    for _ in range(TRIES - 1):
        assert [] == first.settle(NAME, [], {given[0]: "no"})
    assert [given[0]] == first.settle(NAME, [], {given[0]: "no"})


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (record(""), "0 characters"),
        (record("k" * 257), "257 characters"),
        (record("\ud800"), "no text"),
        (record("a", b" " * (MAX_STREAM_BYTES + 1)), "bytes"),
    ],
)
def test_an_unusable_record_refuses_the_whole_put(two, bad, why):
    """Nothing of it is put, and the refusal says what is wrong."""
    first, second = two

    with pytest.raises(BadObject, match=why):
        first.put([record("a"), bad])

    assert [] == second.read(NAME, 10)


def test_only_pipelines_have_streams(two, tmp_path):
    """A name cannot lead out of the folder."""
    with pytest.raises(InvalidSpec, match="no pipeline's name"):
        two[0].put([record("a", pipeline="../shop")])

    assert [] == list(tmp_path.iterdir())


def test_one_consumer_at_a_time(place):
    """The second is refused with the holder's name; a holder that is killed holds no more."""
    first, second = (place.client(time.time) for _ in range(2))
    with first.exclusive(NAME):
        with pytest.raises(Conflict, match="another process"), second.exclusive(NAME):
            pass
        with second.exclusive("other"):
            pass
    program = place.program + (
        "import time\n"
        f"with stream.exclusive({NAME!r}):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "held\n" == process.stdout.readline()
    with pytest.raises(Conflict) as refused, first.exclusive(NAME):
        pass
    assert f"pid {process.pid}" == refused.value.detail["holder"].partition(" on ")[0]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with first.exclusive(NAME, patience=30.0):
        pass


def test_numbers_are_not_given_out_again_after_a_file_was_removed(local_two, root):
    """Request ids are derived from them: a new record must not look like an old one, written."""
    first, second = local_two
    before = first.put([record("a")] * 3)
    shutil.rmtree(root)

    with pytest.raises(Retryable, match="replaced or removed"):
        first.put([record("a")])

    assert second.put([record("a")])[0] > before[-1]
    assert 1 == len(first.read(NAME, 10))


def test_the_file_does_not_grow_with_what_was_consumed(local_two, root):
    """Twenty times the same backlog, put and settled, takes the place of one or two."""
    first, second = local_two
    sizes = []
    for _ in range(20):
        given = first.put([record("a", b"x" * 1000)] * 1000)
        second.settle(NAME, given, {})
        sizes.append(sum(path.stat().st_size for path in root.iterdir()))

    assert max(sizes) < 30 * 1000 * 1000
    assert sizes[-1] <= max(sizes[:-1])
    backlog = [first.put([record("a", b"x" * 1000)] * 5000) for _ in range(16)]
    for given in backlog:
        second.settle(NAME, given, {})
    with second._files[NAME].write(durable=True) as connection:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    assert free * 4096 < 40 * 1000 * 1000


def test_processes_that_put_at_once_lose_nothing(two, place):
    """Every record of each is there once, in the order of its process."""
    program = place.program + (
        "import sys\nfrom ml_control.ports import StreamRecord\n"
        "for i in range(40):\n"
        f"    stream.put([StreamRecord({NAME!r}, sys.argv[1], b'%d' % (2 * i + j))"
        " for j in range(2)])\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, key]) for key in "abc"]
    assert [0, 0, 0] == [writer.wait(60) for writer in writers]

    found = two[0].read(NAME, 1000)

    for key in "abc":
        assert [b"%d" % i for i in range(80)] == [one.data for one in found if one.key == key]
    assert 240 == two[1].state(NAME).waiting


def test_a_damaged_file_is_a_typed_refusal(local_two, root):
    """Neither a traceback nor an empty stream."""
    first, _ = local_two
    root.mkdir()
    (root / f"{NAME}.db").write_bytes(b"this is no database" * 300)

    with pytest.raises(PlatformFailed, match="could not be read"):
        first.read(NAME, 10)
    with pytest.raises(PlatformFailed, match="could not be written"):
        first.put([record("a")])
