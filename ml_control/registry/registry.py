"""The registry as one object: each part has one subject and shares the tables and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from ml_control.ports import Tables
from ml_control.registry.alerts import AlertBook
from ml_control.registry.anchors import Anchors
from ml_control.registry.approvals import Approvals
from ml_control.registry.experiments import Experiments
from ml_control.registry.history import History
from ml_control.registry.leases import Leases
from ml_control.registry.ledger import Ledger
from ml_control.registry.live import Live
from ml_control.registry.models import Models
from ml_control.registry.outcomes import Outcomes
from ml_control.registry.partitions import Partitions
from ml_control.registry.rollouts import Rollouts
from ml_control.registry.sweeps import Sweeps
from ml_control.registry.tokens import Tokens


class Registry:
    """Every part of the registry, by the name of its subject."""

    def __init__(
        self,
        tables: Tables,
        *,
        lease_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
        anchors: Anchors | None = None,
    ) -> None:
        self.tables = tables
        self.clock = clock
        self.history = History(tables, clock, anchors)
        self.alerts = AlertBook(tables, clock)
        self.leases = Leases(tables, clock, lease_seconds)
        self.ledger = Ledger(tables, clock)
        self.partitions = Partitions(tables)
        self.models = Models(tables)
        self.sweeps = Sweeps(tables)
        self.tokens = Tokens(tables, clock)
        self.live = Live(tables)
        self.outcomes = Outcomes(tables)
        self.rollouts = Rollouts(tables, self.history, clock)
        self.experiments = Experiments(tables, self.history, clock)
        self.approvals = Approvals(tables, self.history, clock)
