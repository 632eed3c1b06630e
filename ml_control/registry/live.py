"""What live requests looked like by model version and hour, and how far the log was flushed.

Both change in one transaction, so that every request is counted exactly once, whatever dies
between writing the lake and here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_control.core.live import merged
from ml_control.core.records import Record
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "control-ledger"
#: Hours kept for each model version; an older one's place is taken again.
HOURS = 24 * 31
#: Most (model version, hour) pairs that :meth:`Live.add` takes: a transaction has 100 writes.
MOST_PROFILES = 90


class Plan(Record):
    """Offsets up to which the files are being written; kept until that is done."""

    predictions: int
    outcomes: int


class LiveState(Record):
    """How far the log of a pipeline was flushed; a plan that stands is finished first."""

    pipeline: str
    predictions: int = 0
    outcomes: int = 0
    plan: Plan | None = None
    flushed_at: float = 0.0
    pruned_at: float = 0.0


class Live:
    """One state and one profile for each model version and hour, by compare-and-set."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def state(self, pipeline: str) -> tuple[LiveState, int]:
        """The state, and the item version that writing it expects."""
        item = self._tables.get(_TABLE, _pk(pipeline), "state")
        if item is None:
            return LiveState(pipeline=pipeline), 0
        return LiveState.model_validate(item.body), item.version

    def put(self, state: LiveState, version: int) -> int:
        """Write the state; gives its new version. Raises ``Conflict`` when someone else did."""
        self._tables.transact([_put(state, version)])
        return version + 1

    def add(
        self,
        state: LiveState,
        version: int,
        profiles: Mapping[tuple[str, int], Mapping[str, Any]],
    ) -> int:
        """Write the state and add profiles by (model version, hour since 1970), in one go.

        At most ``MOST_PROFILES`` at once. Raises ``Conflict`` when someone else was faster: then
        nothing was added.
        """
        writes: dict[str, Put] = {}
        for (model_version, hour), profile in sorted(profiles.items(), key=lambda each: each[0][1]):
            sk = _sk(model_version, hour)
            item = self._tables.get(_TABLE, _pk(state.pipeline), sk)
            # A later hour has the place that is the same a month before.
            held = item.body if item is not None and item.body["hour"] >= hour else None
            if held is not None and held["hour"] > hour:
                continue
            together = merged([held["profile"], profile]) if held else dict(profile)
            body = {"hour": hour, "model_version": model_version, "profile": together}
            expect = item.version if item is not None else 0
            writes[sk] = Put(_TABLE, Item(_pk(state.pipeline), sk, body), expect)
        self._tables.transact([_put(state, version), *writes.values()])
        return version + 1

    def merged(
        self, pipeline: str, model_version: str, since: float, until: float
    ) -> dict[str, Any] | None:
        """One profile of all hours that overlap the time; None when there is none.

        In the form of ``core.live``: ``rows``, ``features`` and ``prediction``.
        """
        last = int(until // 3600)
        found = []
        for hour in range(max(int(since // 3600), last - HOURS + 1), last + 1):
            item = self._tables.get(_TABLE, _pk(pipeline), _sk(model_version, hour))
            if item is not None and item.body["hour"] == hour:
                found.append(item.body["profile"])
        return merged(found) if found else None


def _put(state: LiveState, version: int) -> Put:
    return Put(_TABLE, Item(_pk(state.pipeline), "state", state.to_json()), version)


def _pk(pipeline: str) -> str:
    return f"live#{pipeline}"


def _sk(model_version: str, hour: int) -> str:
    return f"profile#{model_version}#{hour % HOURS:03d}"
