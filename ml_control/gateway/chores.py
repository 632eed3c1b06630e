"""What a gateway does beside its requests: it writes the log into the lake and consumes streams."""

from __future__ import annotations

from collections.abc import Callable

from ml_control.core.pipeline import Pipeline
from ml_control.errors import Conflict, MlControlError
from ml_control.gateway.background import Task
from ml_control.gateway.state import State
from ml_control.services.consumer import consume_once
from ml_control.services.flush import flush
from ml_control.services.snapshots import Snapshots

FLUSH_SECONDS = 10.0
CONSUME_SECONDS = 0.5
REREAD_SECONDS = 2.0


def chores(state: State) -> list[Task]:
    """The tasks of a gateway's process."""
    platform = state.platform
    snapshots = Snapshots(platform)

    def names() -> list[str]:
        return list(state.folder.found)

    def write() -> None:
        flush(platform, list(state.folder.found.values()))

    def consume() -> bool:
        return _each(state, lambda pipeline: consume_once(platform, pipeline, snapshots=snapshots))

    return [
        Task("pipeline files", state.reread, REREAD_SECONDS, names),
        Task("prediction log", write, FLUSH_SECONDS, names),
        Task("stream", consume, CONSUME_SECONDS, names),
    ]


def _each(state: State, take: Callable[[Pipeline], int]) -> bool:
    """Take a batch of every pipeline; whether there was any. One's trouble keeps no other waiting:
    the first error is raised at the end. Another consumer at work is no trouble.
    """
    found, refused = False, None
    for pipeline in list(state.folder.found.values()):
        try:
            found = take(pipeline) > 0 or found
        except Conflict:
            continue
        except MlControlError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return found
