"""What a training job printed, from CloudWatch: its rounds as they come, and the end of its log."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ml_control.aws.client import Clients, code_of, redacted, translated
from ml_control.ports import Round

GROUP = "/aws/sagemaker/TrainingJobs"
_TAB = "#011"  # how CloudWatch shows the tab that the container prints
_ROUND = re.compile(r"^\[(\d+)\]\t(.+)$")
_KEPT_LINES = 50


class JobLog:
    """The log of one job's first host. Several hosts print the same metrics."""

    def __init__(self, clients: Clients, job: str) -> None:
        self._logs = clients.client("logs")
        self._job = job
        self._tokens: dict[str, str] = {}
        self._seen: dict[int, Round] = {}
        self.told = self._count = 0
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The rounds that were printed so far without a gap.

        A job that an interruption sent back to its beginning prints them again; the last count.
        """
        found = []
        for index in range(self._count):
            if index not in self._seen:
                break
            found.append(self._seen[index])
        return tuple(found)

    def tail(self, lines: int = 15) -> str:
        """The last lines that it printed."""
        return redacted("\n".join(list(self._lines)[-lines:]))

    def read(self) -> None:
        """Read on to the present end. Raises our errors."""
        for stream in self._streams():
            for line in self._new(stream):
                self._take(line.replace(_TAB, "\t").rstrip())

    def tell(self, on_round: Callable[[Round], None]) -> None:
        """Every round that was read and not told yet, once, in order."""
        while (step := self._seen.get(self.told)) is not None:
            self.told += 1
            on_round(step)

    def _take(self, line: str) -> None:
        if not line:
            return
        self._lines.append(line)
        if not (found := _ROUND.match(line)) or (metrics := _metrics(found[2])) is None:
            return
        step = Round(int(found[1]), metrics)
        self._seen[step.index] = step
        self._count = step.index + 1

    def _streams(self) -> list[str]:
        """Streams of the first host, oldest first: one more for each start of the job."""
        first = f"{self._job}/algo-1-"
        found: list[tuple[int, str]] = []
        with translated(f"log of {self._job}"):
            try:
                pages = self._logs.get_paginator("describe_log_streams").paginate(
                    logGroupName=GROUP, logStreamNamePrefix=f"{self._job}/"
                )
                for page in pages:
                    for stream in page["logStreams"]:
                        name = str(stream["logStreamName"])
                        if name.startswith(first):
                            found.append((int(stream.get("creationTime", 0)), name))
            except Exception as error:
                if code_of(error) != "ResourceNotFoundException":
                    raise
        return [name for _, name in sorted(found)]

    def _new(self, stream: str) -> Iterator[str]:
        while True:
            token = self._tokens.get(stream)
            more: dict[str, Any] = {"nextToken": token} if token else {}
            with translated(f"log of {self._job}"):
                page = self._logs.get_log_events(
                    logGroupName=GROUP, logStreamName=stream, startFromHead=True, **more
                )
            following = str(page["nextForwardToken"])
            for event in page["events"]:
                yield from str(event["message"]).splitlines()
            self._tokens[stream] = following
            if following == token or not page["events"]:
                return


def _metrics(text: str) -> dict[str, float] | None:
    found = {}
    for part in text.strip().split("\t"):
        name, _, value = part.rpartition(":")
        try:
            found[name] = float(value)
        except ValueError:
            return None
    return found
