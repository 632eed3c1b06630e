"""The history of decisions: a hash chain per pipeline, its head moved in the same transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ml_control.core.records import Decision
from ml_control.errors import Conflict, MlControlError, Retryable, Unknown
from ml_control.ports import Check, Item, Put, Table, Tables
from ml_control.registry.anchors import RESTORED, Anchor, Anchors, in_force, wanted

_logger = logging.getLogger("ml_control")
_TABLE: Table = "control-ledger"
_HEAD = "~head"  # sorts after every sequence number


class History:
    """Who decided what, when and why."""

    def __init__(
        self, tables: Tables, clock: Callable[[], float], anchors: Anchors | None = None
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._anchors = anchors

    def append(
        self,
        pipeline: str,
        action: str,
        subject: str,
        because: str,
        *,
        actor: str,
        details: dict[str, Any] | None = None,
        writes: Callable[[], list[Put | Check]] = list,
    ) -> Decision:
        """Add a decision together with the writes it stands for, all or none.

        ``writes`` is asked again when another decision came first; it raises if its own
        condition no longer holds.
        """
        for _ in range(50):
            head = self._tables.get(_TABLE, _pk(pipeline), _HEAD)
            seq = int(head.body["seq"]) + 1 if head else 1
            decision = Decision(
                pipeline=pipeline,
                seq=seq,
                at=self._clock(),
                actor=actor,
                action=action,
                subject=subject,
                because=because,
                details=details or {},
                previous=str(head.body["hash"]) if head else "",
            ).sealed()
            chain: list[Put | Check] = [
                Put(
                    _TABLE,
                    Item(_pk(pipeline), _HEAD, {"seq": seq, "hash": decision.hash}),
                    head.version if head else 0,
                ),
                Put(_TABLE, Item(_pk(pipeline), _sk(seq), decision.to_json()), 0),
            ]
            try:
                self._tables.transact([*writes(), *chain])
            except (Conflict, Retryable) as error:
                if not self._made(decision):
                    moved = self._tables.get(_TABLE, _pk(pipeline), _HEAD)
                    same = (moved.version if moved else 0) == (head.version if head else 0)
                    if same or isinstance(error, Retryable):
                        raise
                    continue
            self._anchor(decision)
            return decision
        raise Conflict(f"{pipeline} history", "too many writers at once", "try again")

    def _made(self, decision: Decision) -> bool:
        """Whether it is in the chain already: a call may fail although it was done.

        Its own record says so, for the head may have moved on since.
        """
        item = self._tables.get(_TABLE, _pk(decision.pipeline), _sk(decision.seq))
        return item is not None and item.body.get("hash") == decision.hash

    def decisions(self, pipeline: str) -> Iterator[Decision]:
        """Every decision, oldest first."""
        for item in self._tables.query(_TABLE, _pk(pipeline)):
            if item.sk != _HEAD:
                yield Decision.model_validate(item.body)

    def newest(self, pipeline: str, before: int | None = None) -> Iterator[Decision]:
        """Decisions, newest first, read as far as they are asked for.

        ``before``: only those with a smaller sequence number.
        """
        if before is not None:
            for seq in range(before - 1, 0, -1):
                item = self._tables.get(_TABLE, _pk(pipeline), _sk(seq))
                if item is not None:
                    yield Decision.model_validate(item.body)
            return
        for item in self._tables.query(_TABLE, _pk(pipeline), reverse=True):
            if item.sk != _HEAD:
                yield Decision.model_validate(item.body)

    def _anchor(self, decision: Decision) -> None:
        """Note the hash outside of the registry; the decision stands, also when that fails."""
        if self._anchors is None or not wanted(decision.action, decision.seq):
            return
        anchor = Anchor(
            decision.pipeline,
            decision.seq,
            decision.hash,
            decision.action,
            decision.details.get("keeps") if decision.action == RESTORED else None,
        )
        try:
            self._anchors.add(anchor)
        except MlControlError as error:
            _logger.warning("decision %d was not anchored: %s", decision.seq, error)

    def verify(self, pipeline: str) -> int:
        """Check the whole chain; gives its length. Raises ``Unknown`` at the first break.

        What was anchored outside of the registry must be in it.
        """
        while True:
            known = in_force(self._anchors.of(pipeline)) if self._anchors else {}
            head = self._tables.get(_TABLE, _pk(pipeline), _HEAD)
            count, previous = self._walk(pipeline, known)
            now = self._tables.get(_TABLE, _pk(pipeline), _HEAD)
            if (now.version if now else 0) == (head.version if head else 0):
                break  # nobody appended while we read
        made = (head.body["seq"], head.body["hash"]) if head else (0, "")
        if made != (count, previous):
            raise Unknown(
                f"{pipeline} history",
                f"its end is missing: {made[0]} decisions were made, {count} are there",
                "compare with a backup of the registry",
            )
        if beyond := [seq for seq in known if seq > count]:
            raise Unknown(
                f"{pipeline} history",
                f"decision {max(beyond)} was anchored outside of the registry, and the registry "
                f"has {count}: it went back in time, or was made anew",
                "restore a newer backup of the registry",
            )
        return count

    def _walk(self, pipeline: str, known: dict[int, Anchor]) -> tuple[int, str]:
        """Length and last hash of the chain, every link of it checked, and every anchor."""
        previous, count = "", 0
        for item in self._tables.query(_TABLE, _pk(pipeline)):
            if item.sk == _HEAD:
                continue
            count += 1
            try:
                decision = Decision.model_validate(item.body)
            except ValidationError as error:
                raise Unknown(
                    f"{pipeline} decision {count}",
                    "it cannot be read as a decision: the record was changed",
                    "compare with a backup of the registry",
                ) from error
            broken = (
                decision.seq != count
                or decision.previous != previous
                or decision.sealed().hash != decision.hash
            )
            if broken:
                raise Unknown(
                    f"{pipeline} decision {decision.seq}",
                    "the chain of hashes is broken here: a record was changed or removed",
                    "compare with a backup of the registry",
                )
            if count in known and known[count].hash != decision.hash:
                raise Unknown(
                    f"{pipeline} decision {count}",
                    "it is not the one that was anchored outside of the registry: the chain was "
                    "made anew",
                    "compare with a backup of the registry",
                )
            previous = decision.hash
        return count, previous


def _pk(pipeline: str) -> str:
    return f"decision#{pipeline}"


def _sk(seq: int) -> str:
    return f"{seq:012d}"
