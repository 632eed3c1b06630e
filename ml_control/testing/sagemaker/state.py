"""What the fake account holds, and its time.

One lock guards it all. Every change happens in memory: an account lives as long as its server,
and control planes may come and go meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ml_control.testing.sagemaker.refused import Refused

Record = dict[str, Any]
KINDS = (
    "training-job",
    "hyper-parameter-tuning-job",
    "transform-job",
    "model",
    "endpoint-config",
    "endpoint",
)


@dataclass(frozen=True)
class Times:
    """How long AWS takes, in seconds; the fake divides them by its ``speed``."""

    starting: float = 60.0  # machines for a job
    downloading: float = 20.0
    uploading: float = 10.0
    stopping: float = 20.0
    interrupted: float = 120.0  # until spot capacity is there again
    creating: float = 180.0  # machines for an endpoint
    ping: float = 480.0  # until a container that never answers has failed; /ping of instances
    serverless_ping: float = 180.0
    updating: float = 180.0
    rolling_back: float = 120.0
    deleting: float = 20.0


class Closing(Exception):
    """The fake is being closed: whatever waits ends here."""


class Account:
    """Everything in the account: records by kind and name, tags by ARN."""

    def __init__(
        self,
        *,
        account: str,
        region: str,
        speed: float,
        times: Times,
        clock: Callable[[], float],
    ) -> None:
        self.account = account
        self.region = region
        self.speed = speed
        self.times = times
        self.clock = clock
        self.lock = threading.RLock()
        self.records: dict[str, dict[str, Record]] = {kind: {} for kind in KINDS}
        self.tags: dict[str, dict[str, str]] = {}
        self.closing = threading.Event()
        self._workers: list[threading.Thread] = []

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a thing of this account."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name}"

    def scaled(self, seconds: float) -> float:
        """How many real seconds these seconds of AWS's are."""
        return seconds / self.speed

    def pause(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Wait for so many of AWS's seconds; whether ``until`` was set meanwhile.

        Raises ``Closing`` when the fake is closed.
        """
        deadline = time.monotonic() + self.scaled(seconds)
        while not (until is not None and until.is_set()):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self.closing.wait(min(left, 0.02) if until is not None else left):
                raise Closing
        return True

    def find(self, kind: str, name: str, absent: Callable[[str], Refused]) -> Record:
        """A record. Raises what ``absent`` makes of its ARN. Call under the lock."""
        found = self.records[kind].get(name)
        if found is None:
            raise absent(self.arn(kind, name))
        return found

    def work(self, name: str, task: Callable[[], None]) -> None:
        """Run a task beside the requests; it ends with the fake."""

        def run() -> None:
            try:
                task()
            except Closing:
                return

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self.lock:
            self._workers = [item for item in self._workers if item.is_alive()]
            self._workers.append(thread)
        thread.start()

    def close(self) -> None:
        """End every wait, then wait for the tasks."""
        self.closing.set()
        for worker in list(self._workers):
            worker.join(timeout=30)
