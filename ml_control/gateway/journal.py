"""Writes the prediction log from a thread of its own: whoever waits meanwhile shares one commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from ml_control.errors import MlControlError, PlatformFailed
from ml_control.ports import Prediction, PredictionLog

_Entry = tuple[Prediction, asyncio.Future[bool] | None]


class Journal:
    """The way from the event loop into a ``PredictionLog``.

    ``lost`` is told of an error that no caller waits for.
    """

    def __init__(self, log: PredictionLog, lost: Callable[[str], None]) -> None:
        self._log = log
        self._lost = lost
        self._pending: list[_Entry] = []
        self._some = threading.Condition()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    async def write(self, prediction: Prediction, *, durable: bool) -> bool | None:
        """Log a request. Durable: on disk when it returns, and whether its id was new.

        Else it returns at once, with None. Raises what the log raises.
        """
        if not durable:
            self._put((prediction, None))
            return None
        self._loop = self._loop or asyncio.get_running_loop()
        done: asyncio.Future[bool] = self._loop.create_future()
        self._put((prediction, done))
        return await done

    def close(self) -> None:
        """Write what is pending and end."""
        with self._some:
            self._closing = True
            self._some.notify()
        self._thread.join()

    def _put(self, entry: _Entry) -> None:
        with self._some:
            self._pending.append(entry)
            self._some.notify()

    def _write(self) -> None:
        while True:
            with self._some:
                while not self._pending and not self._closing:
                    self._some.wait()
                batch, self._pending = self._pending, []
                if not batch:
                    return
            durable = any(done is not None for _, done in batch)
            error: Exception | None = None
            fresh: list[bool] = []
            try:
                fresh = self._log.append([entry for entry, _ in batch], durable=durable)
            except MlControlError as refused:
                error = refused
            except Exception as fault:  # who waits must be told whatever it was
                self._lost(f"the prediction log failed: {type(fault).__name__}")
                error = PlatformFailed("prediction log", "failed", "see logs/gateway.log")
            if error is not None and any(done is None for _, done in batch):
                self._lost(f"{sum(done is None for _, done in batch)} requests not logged: {error}")
            if durable and self._loop is not None:
                self._loop.call_soon_threadsafe(_resolve, batch, fresh, error)


def _resolve(batch: list[_Entry], fresh: list[bool], error: Exception | None) -> None:
    for place, (_, done) in enumerate(batch):
        if done is None or done.done():
            continue
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(fresh[place])
