"""The registry as one object: each part has one subject and shares the tables and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from ml_control.ports import Tables
from ml_control.registry.alerts import AlertBook
from ml_control.registry.history import History
from ml_control.registry.leases import Leases
from ml_control.registry.ledger import Ledger
from ml_control.registry.live import Live
from ml_control.registry.models import Models
from ml_control.registry.partitions import Partitions
from ml_control.registry.rollouts import Rollouts
from ml_control.registry.sweeps import Sweeps
from ml_control.registry.tokens import Tokens


class Registry:
    """Ledger, partitions, leases, models and verdicts, rollouts, history, alerts, sweeps, live,
    tokens.
    """

    def __init__(
        self, tables: Tables, *, lease_seconds: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.tables = tables
        self.clock = clock
        self.history = History(tables, clock)
        self.alerts = AlertBook(tables, clock)
        self.leases = Leases(tables, clock, lease_seconds)
        self.ledger = Ledger(tables, clock)
        self.partitions = Partitions(tables)
        self.models = Models(tables)
        self.sweeps = Sweeps(tables)
        self.tokens = Tokens(tables, clock)
        self.live = Live(tables)
        self.rollouts = Rollouts(tables, self.history, clock)
