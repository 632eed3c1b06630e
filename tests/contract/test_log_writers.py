"""The prediction log under many writers, in any order, and when its file is in trouble."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from emulators import credentials
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from log_places import DynamoLogs, LocalLogs
from logged import P, R, all_joined, request, told

from ml_control.errors import BadObject, Conflict, Retryable, Unknown
from ml_control.local.prediction_log import SqlitePredictionLog


def test_many_writers_together_log_each_request_once_and_readers_skip_nothing(logs, log_place):
    """Four threads on two clients bring overlapping requests and outcomes while a reader follows
    the joined offsets: each request is new to exactly one, and the reader gets all, in order.
    """
    rounds = log_place.rounds
    new: Counter[str] = Counter()
    lock, done, followed = threading.Lock(), threading.Event(), []

    def write(place):
        log = logs[place % 2]
        for i in range(rounds):
            ids = [f"r{i}", f"own-{place}-{i}"]
            found = log.append([request(id, entity=id) for id in ids])
            log.tell(P, ids[1], [told()])
            log.tell(P, ids[0], [told(index=place % 2)])
            with lock:
                new.update(id for id, fresh in zip(ids, found, strict=True) if fresh)

    def follow():
        after, ending = 0, False
        while True:
            page = logs[1].joined(P, after, 7)
            followed.extend(page)
            after = page[-1].offset if page else after
            if not page and ending:
                return
            ending = done.is_set()

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(place,)) for place in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()

    assert {1} == set(new.values())
    assert rounds + 4 * rounds == len(new) == logs[0].traffic(P, R)["champion"].entities
    assert 4 * rounds + 2 * rounds == len(followed)
    assert sorted({each.offset for each in followed}) == [each.offset for each in followed]
    assert len(new) == sum(each.first for each in followed)


def test_a_request_that_cannot_be_written_fails_alone(logs):
    """Those that share its commit are logged."""
    futures = [logs[0].submit([request(id)]) for id in ("r1", "\ud800", "r2")] + [
        logs[0].submit([request("nan", at=float("nan"))])
    ]

    assert [[True], [True]] == [futures[0].result(), futures[2].result()]
    for future in (futures[1], futures[3]):
        assert isinstance(future.exception(), BadObject)
    assert ["r1", "r2"] == [each.prediction.request_id for each in logs[1].after(P, 0, 10)]


def test_a_new_file_is_made_once_by_all_who_come_first(tmp_path):
    """Whoever opens it at the same moment waits for the one that makes it."""
    for turn in range(10):
        made_at_once([SqlitePredictionLog(tmp_path / f"{turn}.db") for _ in range(6)], P)


def test_a_new_log_is_begun_once_by_all_who_come_first(log_place):
    """Of a pipeline that was never logged; each waits for the one that begins it."""
    for turn in range(3):
        made_at_once([log_place.client() for _ in range(6)], f"pipeline-{turn}")


def made_at_once(clients, pipeline):
    futures = [log.submit([request(f"r{i}", pipeline=pipeline)]) for i, log in enumerate(clients)]

    assert [[True]] * len(clients) == [future.result() for future in futures]
    assert len(clients) == clients[0].count(pipeline, 0.0)
    for log in clients:
        log.close()


def test_a_locked_log_is_retryable_and_buffered_requests_wait(tmp_path):
    """A durable writer is told; what was buffered is written when the lock goes."""
    path = tmp_path / "predictions.db"
    with closing(SqlitePredictionLog(path, patience=0.1)) as log:
        log.append([request("r1")])
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            assert [True] == log.append([request("buffered")], durable=False)
            with pytest.raises(Retryable, match="locked") as refused:
                log.append([request("r2")])
            holder.execute("ROLLBACK")
        assert "free space" in refused.value.next
        assert [True] == log.append([request("r2")])
        log.close()
        assert {"r1", "r2", "buffered"} == {
            each.prediction.request_id for each in log.after(P, 0, 10)
        }


def test_a_buffered_request_that_is_lost_is_told_with_the_next(logs):
    """Nobody waited for it: the next call raises once, and then all goes on."""
    log = logs[0]
    log.append([request("bad", "\ud800")], durable=False)
    log.close()
    with pytest.raises(BadObject, match="cannot be written"):
        log.append([request("r1")], durable=False)

    assert [True] == log.append([request("r1")], durable=False)
    log.close()
    assert request("r1") == logs[1].find(P, "r1")


def test_closing_while_others_write_loses_nothing(logs):
    """Whoever submits while the writer ends gets an answer from the next one."""
    futures = []

    def write():
        futures.extend(logs[0].submit([request(f"r{i}")]) for i in range(200))

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(20):
        logs[0].close()
    writer.join()

    assert [[True]] * 200 == [future.result(10) for future in futures]


def test_a_damaged_log_is_unknown_and_left_as_it_is(tmp_path):
    """Nobody can tell what was in it: a person moves it away."""
    path = tmp_path / "predictions.db"
    path.write_bytes(b"no database" * 1000)
    before = path.read_bytes()
    with closing(SqlitePredictionLog(path)) as log:
        for use in (lambda: log.append([request("r1")]), lambda: log.find(P, "r1")):
            with pytest.raises(Unknown, match="damaged") as refused:
                use()
            assert "move the file away" in refused.value.next
    assert before == path.read_bytes()


def test_a_lost_log_is_made_anew_with_offsets_that_go_on(local_log, logs, tmp_path):
    """A reader that noted an offset of the lost one misses nothing of the new one."""
    one, other = logs
    one.append([request("r1")])
    one.tell(P, "r1", [told()])
    noted, joined = one.after(P, 0, 1)[0].offset, all_joined(one)[0].offset
    time.sleep(1.1)  # the clock's seconds decide where a new one begins
    for path in tmp_path.glob("predictions.db*"):
        path.unlink()

    assert other.find(P, "r1") is None
    assert [True] == one.append(
        [
            request("r1"),
        ]
    )
    other.tell(P, "r1", [told()])
    assert ["r1"] == [each.prediction.request_id for each in other.after(P, noted, 10)]
    assert 1 == len(one.joined(P, joined, 10))


class LogMachine(RuleBasedStateMachine):
    """Any order of requests, outcomes, duplicates and reopenings, by two clients."""

    ids = st.sampled_from([f"r{i}" for i in range(6)])

    def __init__(self):
        super().__init__()
        self.open()
        self.logs = [self.place.client(), self.place.client()]
        self.requests, self.values, self.aside = {}, {}, 0

    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.place = LocalLogs(Path(self.folder.name))

    def teardown(self):
        self.place.end()
        self.folder.cleanup()

    @rule(who=st.integers(0, 1), ids=st.lists(ids, min_size=1, max_size=3), durable=st.booleans())
    def append(self, who, ids, durable):
        batch = [made(id) for id in ids]
        expected = []
        for one in batch:
            expected.append(one.request_id not in self.requests)
            self.requests.setdefault(one.request_id, one)
            for key in [k for k in self.values if k[0] == one.request_id and k[1] > 1]:
                del self.values[key]
                self.aside += 1
        found = self.logs[who].append(batch, durable=durable)
        if not durable:
            self.logs[who].close()

        assert expected == found

    @rule(who=st.integers(0, 1), id=ids, index=st.integers(0, 2), value=st.sampled_from("ab"))
    def tell(self, who, id, index, value):
        known, there = self.values.get((id, index)), id in self.requests
        try:
            (found,) = self.logs[who].tell(P, id, [told(value, index)])
        except BadObject:
            assert there
            assert index > 1
            return
        except Conflict:
            assert known not in (None, value)
            return
        assert ("known" if known else "joined" if there else "waiting") == found
        self.values[id, index] = value

    @rule(who=st.integers(0, 1))
    def reopen(self, who):
        self.logs[who].close()
        self.logs[who] = self.place.client()

    @invariant()
    def joined_and_counted(self):
        log = self.logs[0]
        joined = all_joined(log)
        expected = {k: v for k, v in self.values.items() if k[0] in self.requests}
        assert expected == {(one.request_id, one.index): one.outcome for one in joined}
        assert len(expected) == len(joined)
        assert sorted(one.offset for one in joined) == [one.offset for one in joined]
        firsts = Counter(one.entity_id for one in joined if one.first)
        assert dict.fromkeys({one.entity_id for one in joined}, 1) == firsts
        state = log.state(P)
        assert (len(self.values) - len(expected), self.aside) == (state.waiting, state.unjoinable)
        found = log.traffic(P, R)
        for name, arm in (("champion", False), ("challenger", True)):
            own = [one for one in self.requests.values() if one.challenger == arm]
            assert len(own) == found[name].requests
            assert len({one.entity_id for one in own}) == found[name].entities
            assert sum(one.failed for one in own) == found[name].errors
        assert len(self.requests) == log.count(P, 0.0)


class DynamoLogMachine(LogMachine):
    """The same on DynamoDB."""

    def open(self):
        self.folder = ExitStack()
        self.folder.enter_context(credentials())
        self.place = DynamoLogs()

    def teardown(self):
        self.place.end()
        self.folder.close()


def made(id):
    """The request of this id: two ids share an entity, and one in three failed over."""
    number = int(id[1:])
    return request(id, f"e{number // 2}", challenger=number // 2 == 1, failed=number % 3 == 0)


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestDynamoLogMachine = DynamoLogMachine.TestCase
TestDynamoLogMachine.settings = settings(
    TestLogMachine.settings, max_examples=5, stateful_step_count=15
)
