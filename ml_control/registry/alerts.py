"""Alerts: what people were, or are still to be, told; one for each trouble as long as it lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ml_control.core.digests import sha256
from ml_control.core.records import Record
from ml_control.errors import Conflict
from ml_control.ports import Alert, Item, Put, Table, Tables

_TABLE: Table = "control-ledger"
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 900.0


class Raised(Record):
    """An alert, whether it was delivered, and whether its trouble is over."""

    pipeline: str
    key: str
    kind: str
    object: str
    reason: str
    next: str
    at: float
    number: int = 1  # how often this trouble came
    sent: bool = False
    tries: int = 0
    not_before: float = 0.0
    cleared_at: float | None = None

    def alert(self) -> Alert:
        """What is sent. The id stays the same however often it is sent."""
        return Alert(
            id=sha256(f"{self.pipeline}\0{self.key}\0{self.number}".encode())[:24],
            key=self.key,
            pipeline=self.pipeline,
            kind=self.kind,
            object=self.object,
            reason=self.reason,
            next=self.next,
            at=self.at,
        )


class AlertBook:
    """One item for each trouble. Raising one that is open changes nothing."""

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._clock = clock

    def open_one(self, alert: Raised) -> bool:
        """Write an alert down; False when its trouble is known and not over."""
        known, version = self._get(alert.pipeline, alert.key)
        if known is not None and known.cleared_at is None:
            return False
        number = known.number + 1 if known else 1
        try:
            self._write(alert.model_copy(update={"number": number}), version)
        except Conflict:
            return False  # someone else wrote it at the same moment
        return True

    def open(self, pipeline: str) -> list[Raised]:
        """Alerts whose trouble is not over, newest first."""
        found = [*self.unsent(pipeline), *self._at(f"open#{pipeline}")]
        return sorted((a for a in found if a.cleared_at is None), key=lambda a: -a.at)

    def unsent(self, pipeline: str) -> list[Raised]:
        """Alerts that are still to be delivered."""
        return list(self._at(f"unsent#{pipeline}"))

    def delivered(self, alert: Raised) -> None:
        """Note that it was sent."""
        self._change(alert, {"sent": True})

    def failed(self, alert: Raised) -> None:
        """Note that it could not be sent now; it is tried again later, each time later."""
        wait = min(_FIRST_WAIT * 2.0 ** min(alert.tries, 20), _LONGEST_WAIT)
        self._change(alert, {"tries": alert.tries + 1, "not_before": self._clock() + wait})

    def clear(self, alert: Raised) -> None:
        """Note that its trouble is over."""
        self._change(alert, {"cleared_at": self._clock()})

    def _change(self, alert: Raised, update: dict[str, object]) -> None:
        while True:
            known, version = self._get(alert.pipeline, alert.key)
            if known is None or known.number != alert.number:
                return None
            try:
                return self._write(known.model_copy(update=update), version)
            except Conflict:
                continue

    def _at(self, index: str) -> Iterator[Raised]:
        for item in self._tables.query_index(_TABLE, f"alert-{index}"):
            yield Raised.model_validate(item.body)

    def _get(self, pipeline: str, key: str) -> tuple[Raised | None, int]:
        item = self._tables.get(_TABLE, _pk(pipeline), key)
        return (Raised.model_validate(item.body), item.version) if item else (None, 0)

    def _write(self, alert: Raised, version: int) -> None:
        index = None
        if not alert.sent:
            index = f"alert-unsent#{alert.pipeline}"
        elif alert.cleared_at is None:
            index = f"alert-open#{alert.pipeline}"
        item = Item(_pk(alert.pipeline), alert.key, alert.to_json(), index)
        self._tables.transact([Put(_TABLE, item, version)])


def _pk(pipeline: str) -> str:
    return f"alert#{pipeline}"
