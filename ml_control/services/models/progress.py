"""Boosting rounds as they happen: into the run's log, and to whoever watches this run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ml_control.ports import Round

Say = Callable[[str], None]
Watcher = Callable[[str, int, Round], None]
"""Takes what is trained, how many rounds it has at most, and the round."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Have every round that is trained in this context told to the watcher."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def teller(say: Say, what: str, rounds: int) -> Callable[[Round], None]:
    """Tells the watcher every round of a training, and the run's log every tenth."""

    def on_round(step: Round) -> None:
        if (watcher := _watcher.get()) is not None:
            watcher(what, rounds, step)
        if step.index % 10 == 0:
            say(line(step))

    return on_round


def line(step: Round) -> str:
    """A round with its metrics, for people."""
    values = "  ".join(f"{name}:{value:.5f}" for name, value in step.metrics.items())
    return f"[{step.index}] {values}"
