"""What runs beside the requests: each task in a thread of its own, again and again.

A task that fails is tried again after growing waits; one that keeps failing is told to a person,
once, until it works again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.services.alerts import attend, raise_alert
from ml_control.serving.http import log

_TOLD_AFTER = 3  # failures in a row
_LONGEST_WAIT = 300.0
_KIND = "gateway"


@dataclass(frozen=True)
class Task:
    """A call that is made every so many seconds, and the pipelines that suffer when it fails.

    A call that gives a true value has more to do: it is made again at once.
    """

    name: str
    call: Callable[[], object]
    every: float
    pipelines: Callable[[], Sequence[str]]


class Background:
    """Runs tasks until it is told to stop."""

    def __init__(self, platform: Platform, tasks: Sequence[Task]) -> None:
        self._platform = platform
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(task,), name=task.name, daemon=True)
            for task in tasks
        ]

    def start(self) -> None:
        """Begin all of them."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Begin none again, and wait for those under way for at most so long each."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(seconds)

    def _run(self, task: Task) -> None:
        failures, wait, told = 0, task.every, False
        while not self._stopping.wait(wait):
            try:
                more = task.call()
            except Exception as error:  # it must go on whatever happened
                failures += 1
                wait = min(task.every * 2.0**failures, max(_LONGEST_WAIT, task.every))
                known = isinstance(error, MlControlError)
                said = str(error) if known else type(error).__name__
                log(f"{task.name} failed {failures} times: {said!r}", "gateway")
                if failures >= _TOLD_AFTER and not told:
                    told = self._tell(task, failures, said)
                continue
            if told:
                self._clear(task)
            failures, told = 0, False
            wait = 0.0 if more else task.every

    def _tell(self, task: Task, failures: int, said: str) -> bool:
        try:
            for name in task.pipelines():
                reason = f"failed {failures} times: {said}"
                step = "see logs/gateway.log; it is tried again"
                raise_alert(self._platform, name, _KIND, task.name, reason, step)
                attend(self._platform, name)
        except (MlControlError, OSError) as error:
            log(f"{task.name}: the alert was not written: {type(error).__name__}", "gateway")
            return False
        return True

    def _clear(self, task: Task) -> None:
        book = self._platform.registry.alerts
        with suppress(MlControlError):
            for name in task.pipelines():
                for alert in book.open(name):
                    if alert.key == f"{_KIND}#{task.name}":
                        book.clear(alert)
