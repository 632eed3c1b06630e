"""What is published of each partition, changed only under its lease."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ml_control.core.records import PartitionState
from ml_control.errors import Conflict
from ml_control.ports import Check, Item, Put, Table, Tables

_TABLE: Table = "control-ledger"


class Partitions:
    """The state of each partition: one item, compare-and-set, fenced where it publishes."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, pipeline: str, partition: str) -> PartitionState:
        """The state; an unknown partition is an empty one."""
        item = self._tables.get(_TABLE, _pk(pipeline), partition)
        if item is None:
            return PartitionState(pipeline=pipeline, partition=partition)
        return PartitionState.model_validate(item.body)

    def all(self, pipeline: str) -> Iterator[PartitionState]:
        """Every partition, oldest first."""
        for item in self._tables.query(_TABLE, _pk(pipeline)):
            yield PartitionState.model_validate(item.body)

    def newest(self, pipeline: str) -> Iterator[PartitionState]:
        """Every partition, newest first: a window stops reading when it is full."""
        for item in self._tables.query(_TABLE, _pk(pipeline), reverse=True):
            yield PartitionState.model_validate(item.body)

    def stale(self, pipeline: str) -> Iterator[PartitionState]:
        """Partitions whose raw content is neither published as processed nor refused."""
        for item in self._tables.query_index(_TABLE, f"stale#{pipeline}"):
            yield PartitionState.model_validate(item.body)

    def begin(self, pipeline: str, partition: str, at: float) -> None:
        """Count a run that really began as an attempt of the work that was asked for."""
        request = self.get(pipeline, partition).request
        if request is None or not request.key:
            return

        def began(state: PartitionState) -> PartitionState:
            if state.request is None:
                return state
            now = state.request.model_copy(
                update={"attempt": state.request.attempt + 1, "asked": 0, "at": at}
            )
            return state.model_copy(update={"request": now})

        self.update(pipeline, partition, began)

    def update(
        self,
        pipeline: str,
        partition: str,
        change: Callable[[PartitionState], PartitionState],
        fence: Check | None = None,
    ) -> PartitionState:
        """Apply a change to the state as it is now. With a fence it fails once the lease is lost.

        A write by someone else in between is read and the change applied anew: ``change`` must
        touch only its own fields.
        """
        while True:
            item = self._tables.get(_TABLE, _pk(pipeline), partition)
            before = (
                PartitionState.model_validate(item.body)
                if item
                else PartitionState(pipeline=pipeline, partition=partition)
            )
            after = change(before)
            index = f"stale#{pipeline}" if after.stale else None
            put = Put(
                _TABLE,
                Item(_pk(pipeline), partition, after.to_json(), index),
                item.version if item else 0,
            )
            try:
                self._tables.transact([fence, put] if fence else [put])
            except Conflict:
                now = self._tables.get(_TABLE, _pk(pipeline), partition)
                if (now.version if now else 0) != put.expect:
                    continue
                raise
            return after


def _pk(pipeline: str) -> str:
    return f"partition#{pipeline}"
