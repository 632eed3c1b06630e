"""From the event loop into the prediction log: what comes in one turn of the loop goes together."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from ml_control.errors import MlControlError, PlatformFailed
from ml_control.ports import Prediction, PredictionLog
from ml_control.serving.http import log

_Waiting = list[asyncio.Future[bool]]


class Journal:
    """Logs requests. Of one event loop."""

    def __init__(self, prediction_log: PredictionLog) -> None:
        self._log = prediction_log
        self._entries: list[Prediction] = []
        self._waiting: _Waiting = []

    async def write(self, prediction: Prediction, *, durable: bool) -> bool:
        """Log a request; whether its id was new. Durable: it is on disk when this returns.

        Raises what the log raises.
        """
        if not durable:
            (fresh,) = self._log.append([prediction], durable=False)
            return fresh
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        if not self._entries:
            loop.call_soon(self._submit, loop)
        self._entries.append(prediction)
        self._waiting.append(done)
        return await done

    def _submit(self, loop: asyncio.AbstractEventLoop) -> None:
        entries, self._entries = self._entries, []
        waiting, self._waiting = self._waiting, []
        try:
            future = self._log.submit(entries)
        except MlControlError as error:
            _resolve(waiting, [], error)
            return
        future.add_done_callback(
            lambda written: loop.call_soon_threadsafe(_settle, waiting, written)
        )


def _settle(waiting: _Waiting, written: Future[list[bool]]) -> None:
    error = written.exception()
    _resolve(waiting, [] if error else written.result(), error)


def _resolve(waiting: _Waiting, fresh: list[bool], error: BaseException | None) -> None:
    if error is not None and not isinstance(error, MlControlError):
        log(f"the prediction log failed: {type(error).__name__}", "gateway")
        error = PlatformFailed("prediction log", "failed", "see logs/gateway.log")
    for place, done in enumerate(waiting):
        if done.done():
            continue  # whoever waited was cancelled
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(fresh[place])
