"""Asks endpoints that are not on this machine: through the platform's own call, in threads.

The counterpart of :mod:`ml_control.gateway.upstream`, with the same promise: an answer counts only
if nothing but the proven archive can have made it, and it comes within the gateway's time.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ml_control.errors import Retryable
from ml_control.ports import Endpoints, Reply
from ml_control.serving.handlers.steps import Served

THREADS = 64  # requests under way at once; the others wait for one, within their time


class Remote:
    """Asks endpoints. ``seconds`` bound a request from end to end, the wait for a thread too."""

    def __init__(self, endpoints: Endpoints, seconds: float, pool: ThreadPoolExecutor) -> None:
        self._endpoints = endpoints
        self._seconds = seconds
        self._pool = pool

    async def invoke(self, served: Served, rows: bytes) -> Reply:
        """The endpoint's reply to rows of CSV. Raises ``Retryable``, or what the platform says."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                return await loop.run_in_executor(self._pool, self._ask, served, rows)
        except TimeoutError:
            raise Retryable(
                f"endpoint {served.endpoint}",
                f"did not answer within {self._seconds:g} s",
                "see 'ml-control status', and its log in CloudWatch",
            ) from None

    def _ask(self, served: Served, rows: bytes) -> Reply:
        # Nobody waits longer for it, so a thread is given back then too.
        return self._endpoints.invoke(
            served.endpoint, rows, archive=served.archive, seconds=self._seconds
        )
