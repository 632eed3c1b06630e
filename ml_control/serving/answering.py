"""Where an answer is computed: at once for a small body, in a thread of its own for a large one.

A large body takes milliseconds, or seconds in a form that is slow to read. Computed in the event
loop's thread it would keep everybody waiting, ``/ping`` too. Beside it, the loop takes in the next
body while XGBoost, which does not hold the interpreter, works on the last ones, on a core each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ml_control.serving.http import Gone
from ml_control.serving.invocations import Output, render
from ml_control.serving.predictor import Predictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reader = Callable[[bytes, int], NDArray[np.float32]]

LARGE_BYTES = 16 << 10


class Answering:
    """Computes answers with several predictors of the same model, so that none waits for another.

    ``small`` is asked from the event loop's thread alone; each of ``large`` from one thread of
    as many at a time.
    """

    def __init__(self, small: Predictor, large: Sequence[Predictor], output: Output) -> None:
        self._small = small
        self._output = output
        self._free = deque(large)  # taken and given back without a lock
        self._threads = ThreadPoolExecutor(len(large), "large-body")

    async def answer(
        self, read: Reader, body: bytes, accept: str | None, gone: Callable[[], Awaitable[None]]
    ) -> tuple[int, str, bytes]:
        """(status, content type, body) for a request's body. Raises what reading it raises.

        ``gone`` returns once the caller has hung up: then its work is dropped if it has not begun,
        and ``Gone`` raised.
        """
        if len(body) < LARGE_BYTES:
            rows = read(body, self._small.num_features)
            return render(self._small.predict(rows), accept, self._output)
        work = asyncio.wrap_future(self._threads.submit(self._compute, read, body, accept))
        watch = asyncio.ensure_future(gone())
        either: list[asyncio.Future[Any]] = [work, watch]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Gone
            return work.result()
        finally:
            # What has begun goes on, and its answer is dropped. Also at the end of a drain.
            work.cancel()
            watch.cancel()

    def _compute(self, read: Reader, body: bytes, accept: str | None) -> tuple[int, str, bytes]:
        rows = read(body, self._small.num_features)
        predictor = self._free.pop()
        try:
            predictions = predictor.predict(rows)
        finally:
            self._free.append(predictor)
        return render(predictions, accept, self._output)
