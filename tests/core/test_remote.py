"""The gateway's way to endpoints that are not on this machine."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_control.errors import PlatformFailed, Retryable
from ml_control.gateway.remote import Remote
from ml_control.ports import Reply
from ml_control.serving.handlers.steps import Served

SERVED = Served("a", "income-a", "v1", "sum", None)


class Endpoints:
    """Answers as it is told, and notes what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def invoke(self, name, body, content_type="text/csv", accept="text/csv", archive="", seconds=0):
        """One request."""
        self.asked.append((name, body, archive, seconds))
        return self.answer()


def ask(endpoints, times=1, seconds=0.3, threads=4):
    """What becomes of requests at once: replies or errors."""
    with ThreadPoolExecutor(threads) as pool:

        async def run():
            remote = Remote(endpoints, seconds, pool)
            work = [remote.invoke(SERVED, b"1,2\n") for _ in range(times)]
            return await asyncio.gather(*work, return_exceptions=True)

        return asyncio.run(run())


def test_a_request_names_the_proven_archive_and_its_deadline():
    """Nothing but these bytes may answer, and no thread waits longer than the gateway does."""
    endpoints = Endpoints(lambda: Reply(200, b"0.5\n", "text/csv"))

    assert [Reply(200, b"0.5\n", "text/csv")] == ask(endpoints)
    assert [("income-a", b"1,2\n", "sum", 0.3)] == endpoints.asked


@pytest.mark.parametrize("kind", [Retryable, PlatformFailed])
def test_what_the_platform_says_comes_through(kind):
    """The handler decides on typed errors alone."""

    def refuse():
        raise kind("endpoint income-a", "is busy", "wait")

    (error,) = ask(Endpoints(refuse))

    assert kind is type(error)


def test_an_endpoint_that_hangs_costs_its_callers_their_time_and_no_more():
    """Each caller is told within the deadline, also those for whom there was no thread."""
    end = threading.Event()
    endpoints = Endpoints(lambda: end.wait(2.0))
    began = time.monotonic()
    threading.Timer(0.8, end.set).start()

    errors = ask(endpoints, times=12, threads=2)

    assert [Retryable] * 12 == [type(error) for error in errors]
    assert all("did not answer within 0.3 s" in error.reason for error in errors)
    assert 2 == len(endpoints.asked)
    assert time.monotonic() - began < 5.0
