"""Numbers for what repeats in every row: pipelines, rollouts, and the context of a request."""

from __future__ import annotations

import sqlite3

from ml_control.local.prediction_log.schema import first_offset
from ml_control.ports import Prediction

Context = tuple[str, str, str, bool, float, str, str]


def context_of(prediction: Prediction) -> Context:
    """What many requests have in common."""
    return (
        prediction.pipeline,
        prediction.rollout_id,
        prediction.assigned,
        prediction.challenger,
        prediction.share,
        prediction.served,
        prediction.model_version,
    )


class Names:
    """The numbers, given within the writer's transaction and remembered by this process.

    After a rollback, or when the file was replaced, :meth:`forget`: they may not be there.
    """

    def __init__(self) -> None:
        self._pipelines: dict[str, int] = {}
        self._rollouts: dict[tuple[int, str], int] = {}
        self._contexts: dict[Context, int] = {}

    def forget(self) -> None:
        """Read and give all numbers anew."""
        self.__init__()  # type: ignore[misc]

    def pipeline(self, connection: sqlite3.Connection, name: str) -> int:
        """The number of a pipeline."""
        if (known := self._pipelines.get(name)) is not None:
            return known
        start = first_offset()
        connection.execute(
            "INSERT INTO pipelines (name, next, next_join) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO NOTHING",
            (name, start, start),
        )
        row = connection.execute("SELECT no FROM pipelines WHERE name = ?", (name,)).fetchone()
        self._pipelines[name] = found = int(row[0])
        return found

    def rollout(self, connection: sqlite3.Connection, pipeline: int, id: str) -> int:
        """The number of a rollout of a pipeline."""
        if (known := self._rollouts.get((pipeline, id))) is not None:
            return known
        connection.execute(
            "INSERT INTO rollouts (pipeline, id) VALUES (?, ?) "
            "ON CONFLICT (pipeline, id) DO NOTHING",
            (pipeline, id),
        )
        row = connection.execute(
            "SELECT no FROM rollouts WHERE pipeline = ? AND id = ?", (pipeline, id)
        ).fetchone()
        self._rollouts[pipeline, id] = found = int(row[0])
        return found

    def context(self, connection: sqlite3.Connection, context: Context) -> int:
        """The number of a context."""
        if (known := self._contexts.get(context)) is not None:
            return known
        pipeline = self.pipeline(connection, context[0])
        rollout = self.rollout(connection, pipeline, context[1])
        values = (pipeline, rollout, *context[2:])
        connection.execute(
            "INSERT INTO contexts (pipeline, rollout, assigned, challenger, share, served, "
            "model_version) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            values,
        )
        row = connection.execute(
            "SELECT no FROM contexts WHERE pipeline = ? AND rollout = ? AND assigned = ? AND "
            "challenger = ? AND share = ? AND served = ? AND model_version = ?",
            values,
        ).fetchone()
        self._contexts[context] = found = int(row[0])
        return found
