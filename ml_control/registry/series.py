"""The curve of each experiment, as people look at it: one item for each rollout."""

from __future__ import annotations

from ml_control.core.series import Point, added
from ml_control.errors import Conflict
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "ab-test-config"


class Curves:
    """Points of confidence sequences. Losing one changes no decision, only the picture."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def add(self, pipeline: str, rollout_id: str, point: Point) -> None:
        """Add a look; one that is there already, or older, changes nothing."""
        while True:
            item = self._tables.get(_TABLE, pipeline, _sk(rollout_id))
            points = _points(item)
            grown = added(points, point)
            if grown == points:
                return None
            body = {"points": [one.to_json() for one in grown]}
            put = Put(_TABLE, Item(pipeline, _sk(rollout_id), body), item.version if item else 0)
            try:
                return self._tables.transact([put])
            except Conflict:
                continue

    def get(self, pipeline: str, rollout_id: str) -> tuple[Point, ...]:
        """The curve of a rollout, oldest look first; empty if there was none."""
        return _points(self._tables.get(_TABLE, pipeline, _sk(rollout_id)))


def _points(item: Item | None) -> tuple[Point, ...]:
    return tuple(Point.model_validate(one) for one in item.body["points"]) if item else ()


def _sk(rollout_id: str) -> str:
    return f"curve#{rollout_id}"
