"""Takes handlers to their end in the event loop: what waits is awaited, what blocks is in a thread.

The steps of a handler with a large body are computed in a thread, so that small requests are
answered meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ml_control.gateway.journal import Journal
from ml_control.gateway.remote import Remote
from ml_control.gateway.state import State
from ml_control.gateway.upstream import Upstream
from ml_control.serving.handlers.messages import Answer
from ml_control.serving.handlers.steps import Invoke, Look, Step, Steps, Write

LARGE_BYTES = 32 << 10


class _End(Exception):
    """A handler's answer: ``StopIteration`` cannot pass through a future."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__()


class Driver:
    """Does the steps of handlers."""

    def __init__(
        self,
        state: State,
        upstream: Upstream | Remote,
        journal: Journal,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._state = state
        self._upstream = upstream
        self._journal = journal
        self._pool = pool
        self._large = ThreadPoolExecutor(1, "large-body")

    async def run(self, steps: Steps, size: int) -> Answer:
        """The handler's answer. Raises what it raises. ``size``: bytes of the request's body."""
        large = size >= LARGE_BYTES
        try:
            step = await self._take(large, steps.send, None)
            while True:
                try:
                    result = await self._do(step)
                except Exception as error:  # the handler decides what it means
                    step = await self._take(large, steps.throw, error)
                else:
                    step = await self._take(large, steps.send, result)
        except _End as end:
            return end.answer
        finally:
            if not large:  # else it may be under way in its thread
                steps.close()

    async def _take(self, large: bool, go_on: Callable[[Any], Step], value: Any) -> Step:  # noqa: FBT001
        if not large:
            return _until(go_on, value)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._large, _until, go_on, value)

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Invoke):
            return await self._upstream.invoke(step.served, step.body)
        if isinstance(step, Look):
            held = self._state.look(step.pipeline)
            found = held.now()
            return found if found is not None else await held.get()
        if isinstance(step, Write):
            return await self._journal.write(step.prediction, durable=step.durable)
        return await asyncio.get_running_loop().run_in_executor(self._pool, step.call)

    def close(self) -> None:
        """End its threads."""
        self._large.shutdown(wait=True, cancel_futures=True)


def _until(go_on: Callable[[Any], Step], value: Any) -> Step:
    try:
        return go_on(value)
    except StopIteration as end:
        raise _End(end.value) from None
