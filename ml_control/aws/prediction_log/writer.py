"""Group commit: what many threads ask to be written of a pipeline goes into one transaction."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from ml_control.aws.prediction_log.commits import Commits
from ml_control.aws.prediction_log.entries import Unit
from ml_control.aws.prediction_log.store import ACTIONS
from ml_control.errors import BadObject, MlControlError, Retryable

HOLD_SECONDS = 0.5  # so long what need not be durable may wait for company
_MOST_HELD = 50_000
_GROUP = 2_000  # units that are taken from the queue, about
_MOST_PATIENT = 0.005


@dataclass(slots=True, eq=False)
class Job:
    """Units that one caller waits for; ``single`` when the answer is that of the only one."""

    units: Sequence[Unit]
    durable: bool = True
    single: bool = False
    answers: list[Any] = field(default_factory=list)
    future: Future[Any] = field(default_factory=Future)

    @property
    def left(self) -> Sequence[Unit]:
        """Units that have no answer yet."""
        return self.units[len(self.answers) :]


class Writer:
    """The one writer of a pipeline in this process: a thread that is started with the first job."""

    def __init__(self, object: str, commits: Callable[[], Commits]) -> None:
        self._object, self._make = object, commits
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
            self._hold(len(job.units))
        self._queue.put(job)
        if self._thread is None:  # closed meanwhile: the job may be behind the end
            self._start()
        return job.future

    def close(self) -> None:
        """Write what was buffered and end the thread; a later job starts it anew."""
        with self._starting:
            thread, self._thread = self._thread, None
            if thread is not None and self._pid == os.getpid():
                self._queue.put(None)
                thread.join()

    def _hold(self, count: int) -> None:
        with self._counting:
            if count > 0 and self._held + count > _MOST_HELD:
                raise Retryable(
                    self._object,
                    f"{self._held} requests wait to be logged: they cannot be written so fast",
                    "wait, or raise the table's capacity, then try again",
                )
            self._held += count

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None and self._pid == os.getpid():
                return
            if self._pid not in (0, os.getpid()):  # forked: what is the parent's stays there
                self._queue, self._held = SimpleQueue(), 0
            self._pid = os.getpid()
            self._thread = threading.Thread(
                target=self._run, args=(self._queue, self._make()), name="prediction log",
                daemon=True,
            )  # fmt: skip
            self._thread.start()

    def _run(self, queue: SimpleQueue[Job | None], commits: Commits) -> None:
        held: list[Job] = []
        due = 0.0
        ending = False
        while not ending or held:
            urgent = any(job.durable for job in held)
            now = time.monotonic()
            wait = (0.0 if urgent or ending else max(0.0, due - now)) if held else None
            began = not held
            if not ending:
                ending = self._take(queue, wait, held)
            if began:
                due = time.monotonic() + HOLD_SECONDS
            urgent = any(job.durable for job in held)
            if held and (urgent or ending or time.monotonic() >= due):
                started = time.monotonic()
                if not self._write(commits, held, last=ending):
                    due = time.monotonic() + HOLD_SECONDS
                self._patient = min(_MOST_PATIENT, (time.monotonic() - started) / 4)

    def _take(self, queue: SimpleQueue[Job | None], wait: float | None, held: list[Job]) -> bool:
        """Move what waits in the queue to ``held``, up to a group; whether the end was asked for.

        Those who were answered by the last commit come back at once, one after the other: as many
        as were in it are waited for, much shorter than a commit takes. A lone writer waits never.
        """
        count, together, deadline = 0, 0, 0.0
        with suppress(Empty):
            job = queue.get(timeout=wait) if wait != 0.0 else queue.get_nowait()
            while job is not None:
                held.append(job)
                together += job.durable
                count += len(job.units) or 1
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

    def _write(self, commits: Commits, held: list[Job], *, last: bool) -> bool:
        """Commit the first of what is held, and answer whoever has all answers then. False when
        what is left must be tried again later.
        """
        self._answer(held)  # of no units
        units = [unit for job in held[:ACTIONS] for unit in job.left][:ACTIONS]
        if not units:
            return True
        try:
            answers = self._commit(commits, units)
        except MlControlError as error:
            later = isinstance(error, Retryable) and not last
            for job in held:
                if job.durable or not later:
                    self._done(job, error)
            held[:] = [job for job in held if not job.durable] if later else []
            return False
        for job in held:
            given = answers[: len(job.left)]
            answers = answers[len(given) :]
            job.answers += given
        self._answer(held)
        return True

    def _commit(self, commits: Commits, units: Sequence[Unit]) -> list[Any]:
        """Answers of the first units. What cannot be written must not fail what can."""
        for some in (units, units[:1]):
            try:
                return commits.commit(some)
            except (BadObject, MlControlError) as error:
                refused = isinstance(error, BadObject) or (
                    error.detail.get("code") == "ValidationException"
                )
                if not refused:
                    raise
                found: MlControlError = error
            except Exception as error:
                found = BadObject(
                    self._object, f"cannot be written: {error!r}", "correct the request"
                )
        return [found]

    def _answer(self, held: list[Job]) -> None:
        """Tell those whose units are all done."""
        for job in held:
            if job.left:
                continue
            errors = [one for one in job.answers if isinstance(one, BaseException)]
            answer = job.answers[0] if job.single else job.answers
            self._done(job, errors[0] if errors else answer)
        held[:] = [job for job in held if job.left]

    def _done(self, job: Job, answer: Any) -> None:
        if not job.durable:
            self._hold(-len(job.units))
        with suppress(Exception):  # cancelled: it was written nevertheless
            if isinstance(answer, BaseException):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)
