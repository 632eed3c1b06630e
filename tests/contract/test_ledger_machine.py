"""The ledger under any interleaving, on each platform."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from emulators import credentials, fresh_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from storages import DynamoStorage, Storage

from ml_control.core.records import EVENT_STATES, Event
from ml_control.registry import Registry

P, DAY = "flowers", "2026-11-22"


def event(key="a.csv", version="v1", partition=DAY, **fields):
    return Event(
        pipeline=P,
        partition=partition,
        bucket="raw",
        key=f"{P}/{key}",
        version=version,
        size=1,
        path=f"raw/{P}/{partition}/{key}.{version}",
        **fields,
    )


def states(ledger):
    return {(e.key.removeprefix(f"{P}/"), e.version): e.state for e in ledger.events(P)}


def newest(ledger, key="a.csv"):
    """The version of a key that was put last, as a run sees it."""
    return max((e for e in ledger.events(P) if e.key == f"{P}/{key}"), key=lambda e: e.seq).version


class LedgerMachine(RuleBasedStateMachine):
    """Any interleaving of puts, repeated notices, runs, crashes, parking and replay.

    The model knows the order of the puts of each key. Two clients take turns.
    """

    keys = st.sampled_from(["k", "l", "k#l"])
    versions = st.sampled_from(["A", "B", "C"])

    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        self.folder = Path(self.held.enter_context(tempfile.TemporaryDirectory()))
        self.storage = self.make()
        self.tables = [self.storage.client() for _ in "ab"]
        self.ledgers = [Registry(tables, clock=lambda: 1.0).ledger for tables in self.tables]
        self.turn = 0
        self.runs = 0
        self.last: dict[str, str] = {}
        self.known: set[tuple[str, str]] = set()
        self.finished: set[tuple[str, str]] = set()
        self.claims = []

    def make(self):
        """A storage of this example's own."""
        return Storage(self.folder / "registry.db")

    def teardown(self) -> None:
        self.storage.end()
        self.held.close()

    @property
    def ledger(self):
        self.turn += 1
        return self.ledgers[self.turn % 2]

    @rule(key=keys, version=versions)
    def put(self, key, version):
        """A put is recorded; the version is open, or done and current already."""
        was = self.last.get(key)
        self.ledger.record(P, [event(key, version)], [True])
        self.known.add((key, version))
        self.last[key] = version
        if was != version:
            self.finished.discard((key, version))
        state = states(self.ledger)[key, version]
        assert state in ("pending", "claimed") or (state == "done" and was == version)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def hear_again(self, data):
        """Stale word of any known version changes nothing."""
        key, version = data.draw(st.sampled_from(sorted(self.known)))
        before = states(self.ledger)
        assert 0 == self.ledger.record(P, [event(key, version)], [False])
        assert before == states(self.ledger)

    @rule()
    def claim(self):
        """A run takes everything that is open, from whoever had it."""
        self.runs += 1
        claim = self.ledger.claim(P, DAY, f"run {self.runs}")
        held = {k for k, v in states(self.ledger).items() if v == "claimed"}
        assert held == {(e.key.removeprefix(f"{P}/"), e.version) for e in claim}
        assert not any(v == "pending" for v in states(self.ledger).values())
        self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from(["done", "quarantined", "pending", "superseded"]))
    def settle(self, data, state):
        """A run ends, late or in time; it moves only what is still its own."""
        at = data.draw(st.integers(0, len(self.claims) - 1))
        claim = self.claims.pop(at)
        own = {
            (e.key.removeprefix(f"{P}/"), e.version)
            for e in self.ledger.events(P, state="claimed")
            if e.run == claim.run
        }
        assert len(own) == self.ledger.settle(claim, lambda e: (state, None))
        assert all(states(self.ledger)[each] == state for each in own)
        if state == "done":
            self.finished |= own

    @precondition(lambda self: self.claims)
    @rule()
    def crash(self):
        """A run dies and never settles."""
        self.claims.pop()

    @rule()
    def park(self):
        """Attempts are used up."""
        self.ledger.move(list(self.ledger.open_events(P)), "parked", "too many")

    @rule()
    def replay(self):
        """A person takes parked events again."""
        self.ledger.move(list(self.ledger.events(P, state="parked")), "pending", None)

    @invariant()
    def nothing_is_lost(self):
        """Every version ever put is in the ledger once, and the counts add up."""
        assert self.known == set(states(self.ledger))
        counts = self.ledger.counts(P)
        assert set(EVENT_STATES) == set(counts)
        assert len(self.known) == sum(counts.values())

    @invariant()
    def the_sums_are_those_of_the_events(self):
        """What waits, in sum, is what is open, whoever died or was late."""
        open_now = sum(v in ("pending", "claimed") for v in states(self.ledger).values())
        assert open_now == sum(mark.objects for mark in self.ledger.waiting(P))

    @invariant()
    def done_stays_done(self):
        """What is done stays done unless another version came between and it was put again."""
        found = states(self.ledger)
        assert all(found[each] == "done" for each in self.finished)

    @invariant()
    def the_last_put_is_current(self):
        """The highest number belongs to the version that was put last."""
        assert self.last == {key: newest(self.ledger, key) for key in self.last}


class DynamoLedgerMachine(LedgerMachine):
    """The same over DynamoDB."""

    def make(self):
        self.held.enter_context(credentials())
        return DynamoStorage(fresh_settings(), self.folder)


LedgerMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestLedgerMachine = LedgerMachine.TestCase
DynamoLedgerMachine.TestCase.settings = settings(
    LedgerMachine.TestCase.settings,
    max_examples=4,  # and short ones: each step is many requests
    stateful_step_count=12,
)
TestDynamoLedgerMachine = DynamoLedgerMachine.TestCase
