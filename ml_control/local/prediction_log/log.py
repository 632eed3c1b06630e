"""The log as one object over its file: writing by group commit, reading by a connection a thread.

The file is made with the first write. WAL and ``synchronous=FULL``: what was acknowledged as
durable survives the power cut. A file that was lost is made anew, with offsets beyond all earlier
ones; one that is damaged raises ``Unknown`` and is left as it is.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from ml_control.errors import MlControlError
from ml_control.local.prediction_log import outcomes as joining
from ml_control.local.prediction_log import pruning, reading
from ml_control.local.prediction_log.commits import GroupCommit, Job
from ml_control.local.prediction_log.schema import connect, errors, identity
from ml_control.ports import Joined, Logged, LogState, Outcome, Prediction, Traffic

_T = TypeVar("_T")


class SqlitePredictionLog:
    """``ports.PredictionLog`` over one file, used by several processes at once."""

    def __init__(self, path: Path, days: float = 15.0, patience: float = 30.0) -> None:
        """``days``: how long outcomes are joined; ``patience``: seconds a writer waits its turn."""
        self._path, self._days, self._patience = path, days, patience
        self._commits = GroupCommit(path, patience)
        self._local = threading.local()
        self._promised: set[tuple[str, str]] = set()  # buffered ids that are not written yet
        self._lock = threading.Lock()
        self._failed: MlControlError | None = None
        atexit.register(_close, weakref.ref(self))

    def append(self, predictions: Sequence[Prediction], *, durable: bool = True) -> list[bool]:
        """See ``ports.PredictionLog``."""
        if durable:
            return self.submit(predictions).result()
        return self._buffer(predictions)

    def submit(self, predictions: Sequence[Prediction]) -> Future[list[bool]]:
        """See ``ports.PredictionLog``."""
        return self._commits.submit(Job(list(predictions)))

    def _buffer(self, predictions: Sequence[Prediction]) -> list[bool]:
        """Take requests to be written soon; whether each is new as far as can be seen now.

        Raises what kept earlier ones from being written, once: nobody waited for them.
        """
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        told, own = [], []
        with self._lock:
            for prediction in predictions:
                key = (prediction.pipeline, prediction.request_id)
                new = key not in self._promised and not self._is_known(*key)
                told.append(new)
                if new:
                    self._promised.add(key)
                    own.append(prediction)
        if own:
            keys = [(one.pipeline, one.request_id) for one in own]
            try:
                future = self._commits.submit(Job(own, durable=False))
            except MlControlError:
                self._promised.difference_update(keys)
                raise
            future.add_done_callback(lambda done: self._kept(keys, done))
        return told

    def _kept(self, keys: list[tuple[str, str]], done: Future[list[bool]]) -> None:
        self._promised.difference_update(keys)
        error = done.exception()
        if isinstance(error, MlControlError):
            self._failed = error

    def tell(self, pipeline: str, request_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        """See ``ports.PredictionLog``."""
        return self.submit_outcomes(pipeline, request_id, outcomes).result()

    def submit_outcomes(
        self, pipeline: str, request_id: str, outcomes: Sequence[Outcome]
    ) -> Future[list[str]]:
        """See ``ports.PredictionLog``."""
        noted = list(outcomes)
        return self._commits.submit(
            Job(work=lambda c, names: joining.tell(c, names, pipeline, request_id, noted))
        )

    def find(self, pipeline: str, request_id: str) -> Prediction | None:
        """See ``ports.PredictionLog``."""
        return self._read(lambda c: reading.find(c, pipeline, request_id), None)

    def after(self, pipeline: str, offset: int, limit: int) -> list[Logged]:
        """See ``ports.PredictionLog``."""
        return self._read(lambda c: reading.after(c, pipeline, offset, limit), [])

    def joined(self, pipeline: str, after: int, limit: int) -> list[Joined]:
        """See ``ports.PredictionLog``."""
        return self._read(lambda c: reading.joined(c, pipeline, after, limit), [])

    def traffic(self, pipeline: str, rollout_id: str) -> dict[str, Traffic]:
        """See ``ports.PredictionLog``."""
        none = {"champion": Traffic(), "challenger": Traffic()}
        return self._read(lambda c: reading.traffic(c, pipeline, rollout_id), none)

    def recent(self, pipeline: str, since: float) -> dict[str, Traffic]:
        """See ``ports.PredictionLog``."""
        return self._read(lambda c: reading.recent(c, pipeline, since), {})

    def newest(self, pipeline: str, limit: int) -> list[Prediction]:
        """See ``ports.PredictionLog``."""
        return self._read(lambda c: reading.newest(c, pipeline, limit), [])

    def count(self, pipeline: str, since: float) -> int:
        """See ``ports.PredictionLog``."""
        return self._read(lambda c: reading.count(c, pipeline, since), 0)

    def state(self, pipeline: str) -> LogState:
        """See ``ports.PredictionLog``."""
        return self._read(lambda c: reading.state(c, pipeline), LogState())

    def prune(self, pipeline: str, flushed: int, flushed_joined: int, keep: int) -> None:
        """See ``ports.PredictionLog``."""
        seconds = 86400.0 * self._days
        work = Job(
            work=lambda c, names: pruning.prune(
                c, names, pipeline, flushed, flushed_joined, keep, seconds
            )
        ).work
        while self._commits.submit(Job(work=work)).result():
            pass

    def close(self) -> None:
        """Write what is buffered; close this thread's connection and the writer's."""
        self._commits.close()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            connection.close()
        self._local.connection = None

    def _is_known(self, pipeline: str, request_id: str) -> bool:
        return self._read(lambda c: reading.is_known(c, pipeline, request_id), False)

    def _read(self, look: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """What is read; ``otherwise`` when there is no file."""
        with errors(self._path):
            connection = self._connection()
            return otherwise if connection is None else look(connection)

    def _connection(self) -> sqlite3.Connection | None:
        """This thread's connection to the file that has the name now."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            if self._local.pid == os.getpid() and identity(self._path) == self._local.file:
                return connection
            if self._local.pid == os.getpid():
                connection.close()
            self._local.connection = None
        connection = connect(self._path, self._patience, create=False)
        if connection is not None:
            self._local.connection, self._local.file = connection, identity(self._path)
            self._local.pid = os.getpid()
        return connection


def _close(log: weakref.ref[SqlitePredictionLog]) -> None:
    if (found := log()) is not None:
        found.close()
