"""Who approved or rejected a model version, and why: one answer for each, for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ml_control.core.records import Record
from ml_control.errors import Conflict
from ml_control.ports import Check, Item, Put, Table, Tables
from ml_control.registry.history import History

_TABLE: Table = "control-ledger"


class Approval(Record):
    """A person's answer about a model version."""

    pipeline: str
    model_version: str
    state: Literal["approved", "rejected"]
    actor: str
    because: str
    at: float


class Approvals:
    """The first answer stands; it is written with its decision in the history."""

    def __init__(self, tables: Tables, history: History, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._history = history
        self._clock = clock

    def get(self, pipeline: str, version: str) -> Approval | None:
        """The answer about a version, or None while nobody gave one."""
        item = self._tables.get(_TABLE, _pk(pipeline), version)
        return Approval.model_validate(item.body) if item else None

    def write(
        self,
        pipeline: str,
        version: str,
        state: Literal["approved", "rejected"],
        *,
        actor: str,
        because: str,
    ) -> Approval:
        """Keep an answer. The same one again changes nothing; ``Conflict`` for another one."""
        answer = Approval(
            pipeline=pipeline,
            model_version=version,
            state=state,
            actor=actor,
            because=because,
            at=self._clock(),
        )
        known = self.get(pipeline, version)
        if known is None:

            def writes() -> list[Put | Check]:
                return [Put(_TABLE, Item(_pk(pipeline), version, answer.to_json()), 0)]

            try:
                self._history.append(pipeline, state, version, because, actor=actor, writes=writes)
                return answer
            except Conflict:
                known = self.get(pipeline, version)
                if known is None:
                    raise
        if known.state != state:
            raise Conflict(
                f"{pipeline} model {version[:12]}",
                f"{known.actor} {known.state} it already: {known.because}",
                "an answer is final for its version; train another model",
                holder=known.actor,
            )
        return known


def _pk(pipeline: str) -> str:
    return f"approval#{pipeline}"
