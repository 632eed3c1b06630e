"""How far the look through the lake has come, so that a restart neither repeats nor skips."""

from __future__ import annotations

from ml_control.core.records import Record
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "control-ledger"


class SweepState(Record):
    """One pass over a pipeline's raw objects, in the order of their paths."""

    pipeline: str
    under_way: bool = False
    after: str = ""  # the last path looked at
    began_at: float = 0.0
    ended_at: float = 0.0
    looked: int = 0
    found: int = 0
    passes: int = 0


class Sweeps:
    """One item a pipeline, changed by compare-and-set."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, pipeline: str) -> tuple[SweepState, int]:
        """The state, and the item version that :meth:`put` expects."""
        item = self._tables.get(_TABLE, f"sweep#{pipeline}", "state")
        if item is None:
            return SweepState(pipeline=pipeline), 0
        return SweepState.model_validate(item.body), item.version

    def put(self, state: SweepState, version: int) -> int:
        """Write it; gives the new item version. Raises ``Conflict`` when another process did."""
        item = Item(f"sweep#{state.pipeline}", "state", state.to_json())
        self._tables.transact([Put(_TABLE, item, version)])
        return version + 1
