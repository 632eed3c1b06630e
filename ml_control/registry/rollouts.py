"""The Rollout of each pipeline: the one record of routing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ml_control.core.records import Rollout
from ml_control.errors import Conflict
from ml_control.ports import Check, Item, Put, Table, Tables
from ml_control.registry.history import History

_TABLE: Table = "ab-test-config"
_SK = "rollout"
_TOLD = ("weights", "variants", "version", "strategy", "state", "phase", "challenger")


class Rollouts:
    """Read freely; written only by compare-and-set, under a lease, with a decision beside it."""

    def __init__(self, tables: Tables, history: History, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._history = history
        self._clock = clock

    def get(self, pipeline: str) -> Rollout:
        """The rollout; a pipeline that never deployed has an empty one."""
        item = self._tables.get(_TABLE, pipeline, _SK)
        if item is None:
            return Rollout(pipeline=pipeline, id=f"{pipeline}-0")
        return Rollout.model_validate(item.body)

    def write(
        self,
        before: Rollout,
        after: Rollout,
        fence: Check,
        *,
        action: str,
        because: str,
        actor: str,
        details: Mapping[str, Any] | None = None,
    ) -> Rollout:
        """Replace ``before`` by ``after``; ``Conflict`` if it moved or the lease was lost.

        The decision's subject is the champion after it; ``details`` are added to the record's own.
        It holds the whole record, so that history alone tells what was live when.
        """
        fresh = after.model_copy(
            update={"version": before.version + 1, "updated_at": self._clock()}
        )

        body = fresh.to_json()

        def writes() -> list[Put | Check]:
            if self.get(before.pipeline).version != before.version:
                raise Conflict(
                    f"{before.pipeline} rollout",
                    "it was changed by someone else meanwhile",
                    "read it again and decide anew",
                )
            item = Item(before.pipeline, _SK, body)
            return [fence, Put(_TABLE, item, before.version)]

        self._history.append(
            before.pipeline,
            action,
            fresh.champion or "",
            because,
            actor=actor,
            details={
                **{name: body[name] for name in _TOLD},
                "rollout": fresh.id,
                "record": body,
                **(details or {}),
            },
            writes=writes,
        )
        return fresh
