"""Group commit: what many threads ask to be written goes into one transaction and one fsync."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ml_control.errors import BadObject, MlControlError, Retryable
from ml_control.local.prediction_log.appending import append
from ml_control.local.prediction_log.names import Names
from ml_control.local.prediction_log.schema import connect, identity, is_of_the_file, translated
from ml_control.ports import Prediction

HOLD_SECONDS = 0.5  # so long what need not be durable may wait for company
_MOST_HELD = 50_000
_GROUP = 2_000  # requests in a transaction, about; more wait for the next one
_MOST_PATIENT = 0.002
Work = Callable[[sqlite3.Connection, Names], Any]


@dataclass(slots=True, eq=False)
class Job:
    """Something to write: requests to append, or any other work within the transaction."""

    predictions: Sequence[Prediction] = ()
    work: Work | None = None
    durable: bool = True
    future: Future[Any] = field(default_factory=Future)


class GroupCommit:
    """The one writer of this process: a thread that is started with the first job."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path, self._patience = path, patience
        self._names = Names()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._starting, self._counting = threading.Lock(), threading.Lock()
        self._held = 0  # requests that are buffered
        self._together = 1  # durable jobs in the last group
        self._patient = 0.0  # seconds that such a group is waited for

    def submit(self, job: Job) -> Future[Any]:
        """Write it soon. Raises ``Retryable`` when too much waits that could not be written."""
        if self._thread is None or self._pid != os.getpid():
            self._start()
        if not job.durable:
            self._hold(len(job.predictions))
        self._queue.put(job)
        if self._thread is None:  # closed meanwhile: the job may be behind the end
            self._start()
        return job.future

    def _hold(self, count: int) -> None:
        with self._counting:
            if count > 0 and self._held + count > _MOST_HELD:
                raise Retryable(
                    str(self._path),
                    f"{self._held} requests wait to be logged: the disk does not take them",
                    "free space or end stuck writers, then try again",
                )
            self._held += count

    def close(self) -> None:
        """Write what was buffered and end the thread; a later job starts it anew."""
        with self._starting:
            thread, self._thread = self._thread, None
            if thread is not None and self._pid == os.getpid():
                self._queue.put(None)
                thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None and self._pid == os.getpid():
                return
            if self._pid not in (0, os.getpid()):  # forked: what is the parent's stays there
                self._queue, self._connection, self._held = SimpleQueue(), None, 0
                self._names.forget()
            self._pid = os.getpid()
            self._thread = threading.Thread(
                target=self._run, args=(self._queue,), name="prediction log", daemon=True
            )
            self._thread.start()

    def _run(self, queue: SimpleQueue[Job | None]) -> None:
        held: list[Job] = []
        due = 0.0
        while True:
            wait = max(0.0, due - time.monotonic()) if held else None
            began = not held
            ending = self._take(queue, wait, held)
            if began:
                due = time.monotonic() + HOLD_SECONDS
            urgent = any(job.durable for job in held)
            if held and (urgent or ending or time.monotonic() >= due):
                held = self._write(held, last=ending)
                due = time.monotonic() + HOLD_SECONDS
            if ending:
                self._disconnect()
                return

    def _take(self, queue: SimpleQueue[Job | None], wait: float | None, held: list[Job]) -> bool:
        """Move what waits in the queue to ``held``, up to a group; whether the end was asked for.

        Those who were answered by the last commit come back at once, one after the other: as many
        as were in it are waited for, much shorter than a commit takes. A lone writer waits never.
        """
        count, together, deadline = 0, 0, 0.0
        with suppress(Empty):
            job = queue.get(timeout=wait)
            while job is not None:
                held.append(job)
                together += job.durable
                count += len(job.predictions) or 1
                if count >= _GROUP:
                    break
                if not together or together >= self._together:
                    job = queue.get_nowait()
                    continue
                deadline = deadline or time.monotonic() + self._patient
                job = queue.get(timeout=max(0.0, deadline - time.monotonic()))
            else:
                return True
        self._together = together or self._together
        return False

    def _write(self, jobs: list[Job], *, last: bool) -> list[Job]:
        """Commit jobs; gives those that must be tried again later."""
        try:
            answers = self._commit(jobs)
        except Exception as error:
            if not is_of_the_file(error) and not isinstance(error, MlControlError):
                if len(jobs) > 1:  # one of them cannot be written: it must not fail the others
                    return [job for one in jobs for job in self._write([one], last=last)]
                error = BadObject(
                    "prediction log", f"cannot be written: {error}", "correct the request"
                )
            elif not isinstance(error, MlControlError):
                error = translated(self._path, error)
            later = isinstance(error, Retryable) and not last
            for job in jobs:
                if job.durable or not later:
                    self._done(job, error)
            return [job for job in jobs if not job.durable] if later else []
        for job, answer in zip(jobs, answers, strict=True):
            self._done(job, answer)
        return []

    def _done(self, job: Job, answer: Any) -> None:
        if not job.durable:
            self._hold(-len(job.predictions))
        with suppress(Exception):  # cancelled: it was written nevertheless
            if isinstance(answer, BaseException):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)

    def _commit(self, jobs: list[Job]) -> list[Any]:
        connection = self._connect()
        try:
            connection.execute("BEGIN IMMEDIATE")
            if identity(self._path) != self._file:  # replaced while we waited: nobody would see it
                raise Retryable(str(self._path), "was replaced or removed", "try again")
            answers: list[Any] = []
            for appends, run in groupby(jobs, lambda job: job.work is None):
                own = list(run)
                answers += self._append(connection, own) if appends else self._do(connection, own)
            began = time.monotonic()
            connection.execute("COMMIT")
            self._patient = min(_MOST_PATIENT, (time.monotonic() - began) / 4)
        except BaseException:
            self._names.forget()
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if identity(self._path) != self._file:
                self._disconnect()
            raise
        return answers

    def _append(self, connection: sqlite3.Connection, jobs: list[Job]) -> list[list[bool]]:
        if len(jobs) == 1:
            return [append(connection, self._names, jobs[0].predictions)]
        told = append(connection, self._names, [p for job in jobs for p in job.predictions])
        answers, place = [], 0
        for job in jobs:
            answers.append(told[place : place + len(job.predictions)])
            place += len(job.predictions)
        return answers

    def _do(self, connection: sqlite3.Connection, jobs: list[Job]) -> list[Any]:
        """Work that checks before it writes: its refusal is its own and undoes nothing."""
        answers: list[Any] = []
        for job in jobs:
            try:
                answers.append(job.work(connection, self._names) if job.work else None)
            except MlControlError as error:
                answers.append(error)
        return answers

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and identity(self._path) == self._file:
            return self._connection
        self._disconnect()
        connection = connect(self._path, self._patience, create=True)
        if connection is None:  # never, for it was to be made
            raise Retryable(str(self._path), "could not be made", "try again")
        self._connection, self._file = connection, identity(self._path)
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._names.forget()
