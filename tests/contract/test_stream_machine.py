"""Two clients of a stream in any order of calls: on this machine, and on Kinesis."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kinesis import FakeKinesis, clients_of
from streams import NAME, RETRY, TRIES, Clock, record

from ml_control.aws.stream import KinesisStream, putting
from ml_control.local.registry import SqliteTables
from ml_control.local.stream import SqliteStream


class Interleavings(RuleBasedStateMachine):
    """Two clients put, read, settle, fail, poison, replay and crash in any order."""

    ordered = True  # all records have one order, not those of a key alone

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="stream-"))
        self.clock = Clock()
        self.begin()
        self.clients = [self.client(), self.client()]
        self.keys = {}  # of every record by number
        self.done, self.parked = set(), set()
        self.tries = {}
        self.read = [[], []]

    def begin(self):
        """What the clients share."""

    def client(self):
        return SqliteStream(self.root, TRIES, RETRY, self.clock)

    def teardown(self):
        for client in self.clients:
            client.close()
        shutil.rmtree(self.root)

    @property
    def waiting(self):
        return sorted(self.keys.keys() - self.done - self.parked)

    @rule(who=st.integers(0, 1), keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=5))
    def put(self, who, keys):
        given = self.clients[who].put([record(key, key.encode()) for key in keys])
        assert not self.ordered or not self.keys or given[0] > max(self.keys)
        assert not set(given) & self.keys.keys()
        self.keys.update(zip(given, keys, strict=True))

    @rule(who=st.integers(0, 1), limit=st.integers(1, 8))
    def look(self, who, limit):
        found = [one.sequence for one in self.clients[who].read(NAME, limit)]
        assert sorted(set(found)) == found
        assert set(found) <= set(self.waiting)
        for key in "abc":  # a key's records are given from its first one on, without gaps
            of_key = [one for one in self.waiting if self.keys[one] == key]
            given = [one for one in found if self.keys[one] == key]
            assert of_key[: len(given)] == given
        if not self.tries and self.ordered:
            assert self.waiting[:limit] == found
        if not self.tries:
            assert bool(self.waiting) == bool(found)
        self.read[who] = found

    @rule(who=st.integers(0, 1), fate=st.lists(st.sampled_from("dfpn"), min_size=8, max_size=8))
    def settle(self, who, fate):
        fates = dict(zip(self.read[who], fate, strict=False))
        done = [one for one, what in fates.items() if what == "d"]
        failed = {one: "no answer" for one, what in fates.items() if what == "f"}
        poison = {one: "bad" for one, what in fates.items() if what == "p"}
        parked = self.clients[who].settle(NAME, done, failed, poison)
        open_before = set(self.waiting)
        expected = set(poison) & open_before
        for one in set(failed) & open_before:
            self.tries[one] = self.tries.get(one, 0) + 1
            if self.tries[one] == TRIES:
                expected.add(one)
        assert expected == set(parked)
        self.parked |= expected
        self.done |= set(done) & open_before
        for one in self.done | self.parked:
            self.tries.pop(one, None)

    @rule(who=st.integers(0, 1))
    def crash(self, who):
        """A client that dies has read and said nothing."""
        self.clients[who].close()
        self.clients[who], self.read[who] = self.client(), []

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, -100.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @precondition(lambda self: self.parked)
    @rule(who=st.integers(0, 1))
    def replay(self, who):
        assert len(self.parked) == self.clients[who].replay(NAME)
        self.parked = set()

    @invariant()
    def nothing_is_lost(self):
        state = self.clients[0].state(NAME)
        assert (len(self.waiting), len(self.parked)) == (state.waiting, state.parked)
        assert len(self.tries) == state.failing
        assert sorted(self.parked) == [p.record.sequence for p in self.clients[1].parked(NAME)]
        if self.keys:
            first = self.waiting[0] if self.waiting else max(self.keys) + 1
            assert first - 1 == state.checkpoint


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


class KinesisInterleavings(Interleavings):
    """The same on Kinesis, with a second pipeline in the same shard, throttling and puts that fail
    in part; what a client holds in memory is never all that it knows.
    """

    shards = 1

    def begin(self):
        self.kinesis = FakeKinesis(self.shards, self.clock)
        self.failing = set()
        self.kinesis.refuse = self.refuse
        self.patched = mock.patch.object(putting, "_FIRST_WAIT", 0.0)
        self.patched.start()

    def teardown(self):
        self.patched.stop()
        super().teardown()

    def refuse(self, entry):
        """Every second entry is failed when it is sent first."""
        fresh = entry["Data"] not in self.failing
        self.failing.add(entry["Data"])
        return fresh and len(self.failing) % 2 == 0

    def client(self):
        tables = SqliteTables(self.root / "registry.db")
        return KinesisStream(
            clients_of(self.kinesis), tables, RETRY, tries=TRIES, poll_seconds=0.0,
            clock=self.clock,
        )  # fmt: skip

    @rule(who=st.integers(0, 1), count=st.integers(1, 4))
    def put_others(self, who, count):
        self.clients[who].put([record("x", b"", "other")] * count)

    @rule(who=st.integers(0, 1), limit=st.integers(1, 4))
    def consume_others(self, who, limit):
        found = self.clients[who].read("other", limit)
        self.clients[who].settle("other", [one.sequence for one in found], {})

    @rule()
    def five_minutes(self):
        self.kinesis.lose_iterators()

    @rule(page=st.integers(1, 3))
    def small_pages(self, page):
        self.kinesis.page = page

    @invariant()
    def nothing_is_lost(self):
        state = self.clients[0].state(NAME)
        assert (len(self.waiting), len(self.parked)) == (state.waiting, state.parked)
        assert len(self.tries) == state.failing
        assert sorted(self.parked) == [p.record.sequence for p in self.clients[1].parked(NAME)]
        if self.waiting:
            assert self.waiting[0] - 1 == state.checkpoint
        elif self.keys and self.ordered:
            assert max(self.keys) <= state.checkpoint


class ShardedInterleavings(KinesisInterleavings):
    """The same over shards that are split meanwhile: the order of each key holds."""

    shards, ordered = 2, False

    @precondition(lambda self: len(self.kinesis.shards) < 8)
    @rule(which=st.integers(0, 7))
    def split(self, which):
        open = [id for id, shard in self.kinesis.shards.items() if not shard.closed]
        self.kinesis.split(open[which % len(open)])
        for client in self.clients:
            client._shards.listed(anew=True)


TestKinesisInterleavings = KinesisInterleavings.TestCase
TestKinesisInterleavings.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestShardedInterleavings = ShardedInterleavings.TestCase
TestShardedInterleavings.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
