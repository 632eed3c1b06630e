"""The ledger under any interleaving, while its storage fails."""

from __future__ import annotations

from itertools import count

from failing import plan_of, wrapped
from hypothesis import settings
from storages import Storage
from test_ledger_machine import LedgerMachine

NUMBERS = count(1)


class FailingLedgerMachine(LedgerMachine):
    """Two clients that fail and ask again; every example with a seed of its own."""

    def make(self):
        plan = plan_of(str(next(NUMBERS)))

        class Failing(Storage):
            def client(self):
                return wrapped(super().client(), plan, "tables")

        return Failing(self.folder / "registry.db")


FailingLedgerMachine.TestCase.settings = settings(
    LedgerMachine.TestCase.settings, max_examples=12, stateful_step_count=20
)
TestFailingLedgerMachine = FailingLedgerMachine.TestCase
