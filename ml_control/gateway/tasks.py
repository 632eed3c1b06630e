"""What a gateway does beside answering: it brings what was logged into the lake."""

from __future__ import annotations

from ml_control.gateway.background import Task
from ml_control.gateway.state import State
from ml_control.services.flush import flush

_FLUSH_SECONDS = 10.0


def tasks(state: State) -> list[Task]:
    """The tasks of a platform's gateway."""

    def names() -> list[str]:
        return list(state.folder.found)

    def write() -> None:
        flush(state.platform, list(state.folder.found.values()))

    return [Task("flush", write, _FLUSH_SECONDS, names)]
