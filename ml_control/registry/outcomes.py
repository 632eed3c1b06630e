"""Sums over the outcomes of predictions: each outcome counted once, however often it is read."""

from __future__ import annotations

from ml_control.core.live_quality import OutcomeSums
from ml_control.errors import Conflict
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "control-ledger"


class Outcomes:
    """One item a pipeline: the sums and the offset that they reach to, written together."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, pipeline: str) -> OutcomeSums:
        """The sums; empty ones for a pipeline without outcomes."""
        item = self._tables.get(_TABLE, _pk(pipeline), "sums")
        return OutcomeSums.model_validate(item.body) if item else OutcomeSums(pipeline=pipeline)

    def move(self, before: OutcomeSums, after: OutcomeSums) -> bool:
        """Replace sums by later ones; False when someone else was faster."""
        item = self._tables.get(_TABLE, _pk(before.pipeline), "sums")
        offset = int(item.body["offset"]) if item else 0
        if offset != before.offset:
            return False
        fresh = Item(_pk(after.pipeline), "sums", after.to_json())
        try:
            self._tables.transact([Put(_TABLE, fresh, item.version if item else 0)])
        except Conflict:
            return False
        return True


def _pk(pipeline: str) -> str:
    return f"outcomes#{pipeline}"
