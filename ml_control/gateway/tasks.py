"""What a gateway does beside answering: it consumes streams and flushes the log to the lake."""

from __future__ import annotations

from ml_control.gateway.background import Task
from ml_control.gateway.state import State
from ml_control.services.traffic.consumer import IDLE_SECONDS, Consumer
from ml_control.services.traffic.flush import flush
from ml_control.serving.http import log

_FLUSH_SECONDS = 10.0


def tasks(state: State) -> list[Task]:
    """The tasks of a platform's gateway."""

    def names() -> list[str]:
        return list(state.folder.found)

    def write() -> None:
        flush(state.platform, list(state.folder.found.values()))

    def say(line: str) -> None:
        log(line, "gateway")

    consumer = Consumer(state.platform, lambda: list(state.folder.found.values()), say)
    return [
        Task("flush", write, _FLUSH_SECONDS, names),
        Task("stream", consumer.round, IDLE_SECONDS, names),
    ]
