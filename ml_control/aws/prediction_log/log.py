"""The log as one object over its table: a writer for each pipeline, and consistent reads.

Every durable call returns after a transaction that holds the request, its counts and all else that
belongs to it. Any number of processes may write at once: each commit moves the pipeline's head from
the state that it read, so one of two at the same moment is drafted anew.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from ml_control.aws.client import Clients
from ml_control.aws.prediction_log import counting, pruning, reading
from ml_control.aws.prediction_log.commits import Commits
from ml_control.aws.prediction_log.entries import Step, entry_of, telling_of
from ml_control.aws.prediction_log.keys import Keys
from ml_control.aws.prediction_log.store import Store
from ml_control.aws.prediction_log.writer import Job, Writer
from ml_control.errors import MlControlError
from ml_control.ports import Joined, Logged, LogState, Outcome, Prediction, Traffic

PATIENCE = 30.0  # seconds that a writer tries to get its turn


class DynamoPredictionLog:
    """``ports.PredictionLog`` in the table ``control-ledger``; several processes may use it."""

    def __init__(self, clients: Clients, days: float = 15.0, patience: float = PATIENCE) -> None:
        """``days``: how long outcomes are joined; ``patience``: seconds a writer tries."""
        self._store, self._days, self._patience = Store(clients), days, patience
        self._writers: dict[str, Writer] = {}
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
        return self._submit(list(predictions), durable=True)

    def _submit(self, predictions: Sequence[Prediction], *, durable: bool) -> Future[list[bool]]:
        pipelines = list(dict.fromkeys(one.pipeline for one in predictions))
        try:
            entries = [entry_of(one) for one in predictions]
        except MlControlError as error:
            return _failure(error)
        if len(pipelines) == 1:
            return self._writer(pipelines[0]).submit(Job(entries, durable=durable))
        told: list[bool] = [False] * len(entries)
        together: Future[list[bool]] = Future()
        if not pipelines:
            together.set_result([])
            return together
        waiting = _Together(together, told, len(pipelines))
        for name in pipelines:
            places = [i for i, one in enumerate(predictions) if one.pipeline == name]
            job = Job([entries[i] for i in places], durable=durable)
            self._writer(name).submit(job).add_done_callback(waiting.part(places))
        return together

    def _buffer(self, predictions: Sequence[Prediction]) -> list[bool]:
        """Take requests to be written soon; whether each is new as far as can be seen now.

        Raises what kept earlier ones from being written, once: nobody waited for them.
        """
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        known = reading.known(self._store, [(one.pipeline, one.request_id) for one in predictions])
        told, own = [], []
        with self._lock:
            for prediction in predictions:
                key = (prediction.pipeline, prediction.request_id)
                new = key not in self._promised and key not in known
                told.append(new)
                if new:
                    self._promised.add(key)
                    own.append(prediction)
        if own:
            keys = [(one.pipeline, one.request_id) for one in own]
            try:
                future = self._submit(own, durable=False)
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
        try:
            telling = telling_of(request_id, outcomes)
        except MlControlError as error:
            return _failure(error)
        return self._writer(pipeline).submit(Job([telling], single=True))

    def find(self, pipeline: str, request_id: str) -> Prediction | None:
        """See ``ports.PredictionLog``."""
        return reading.find(self._store, Keys(pipeline), request_id)

    def after(self, pipeline: str, offset: int, limit: int) -> list[Logged]:
        """See ``ports.PredictionLog``."""
        return reading.after(self._store, Keys(pipeline), offset, limit)

    def joined(self, pipeline: str, after: int, limit: int) -> list[Joined]:
        """See ``ports.PredictionLog``."""
        return reading.joined(self._store, Keys(pipeline), after, limit)

    def traffic(self, pipeline: str, rollout_id: str) -> dict[str, Traffic]:
        """See ``ports.PredictionLog``."""
        return counting.read_traffic(self._store, Keys(pipeline), rollout_id)

    def recent(self, pipeline: str, since: float) -> dict[str, Traffic]:
        """See ``ports.PredictionLog``."""
        return counting.read_recent(self._store, Keys(pipeline), since)

    def newest(self, pipeline: str, limit: int) -> list[Prediction]:
        """See ``ports.PredictionLog``."""
        return reading.newest(self._store, Keys(pipeline), limit)

    def count(self, pipeline: str, since: float) -> int:
        """See ``ports.PredictionLog``."""
        found = counting.read_recent(self._store, Keys(pipeline), since)
        return sum(one.requests for one in found.values())

    def state(self, pipeline: str) -> LogState:
        """See ``ports.PredictionLog``."""
        head = reading.head_of(self._store, Keys(pipeline))
        return LogState() if head is None else head.state

    def prune(self, pipeline: str, flushed: int, flushed_joined: int, keep: int) -> None:
        """See ``ports.PredictionLog``."""
        writer = self._writer(pipeline)

        def do(work: Any) -> Any:
            return writer.submit(Job([Step(work)], single=True)).result()

        seconds = 86400.0 * self._days
        pruning.prune(self._store, Keys(pipeline), do, (flushed, flushed_joined), keep, seconds)

    def close(self) -> None:
        """Write what is buffered and end the writers."""
        for writer in list(self._writers.values()):
            writer.close()

    def _writer(self, pipeline: str) -> Writer:
        with self._lock:
            if (found := self._writers.get(pipeline)) is None:
                found = self._writers[pipeline] = Writer(
                    self._store.object,
                    lambda: Commits(self._store, Keys(pipeline), self._days, self._patience),
                )
            return found


class _Together:
    """Fulfils one future when the parts of several pipelines are done."""

    def __init__(self, future: Future[list[bool]], told: list[bool], parts: int) -> None:
        self._future, self._told, self._left = future, told, parts
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def part(self, places: Sequence[int]) -> Any:
        """What is called when the part with these places is done."""

        def done(future: Future[list[bool]]) -> None:
            error = future.exception()
            if error is None:
                for place, new in zip(places, future.result(), strict=True):
                    self._told[place] = new
            with self._lock:
                self._error = self._error or error
                self._left -= 1
                last = self._left == 0
            if last and self._error is not None:
                self._future.set_exception(self._error)
            elif last:
                self._future.set_result(self._told)

        return done


def _failure(error: MlControlError) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _close(log: weakref.ref[DynamoPredictionLog]) -> None:
    if (found := log()) is not None:
        found.close()
