"""How often SageMaker is asked what an endpoint serves, and how long that counts."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_control.aws.endpoint_invocations import Invocations
from ml_control.errors import Retryable


class Runtime:
    """Answers every request."""

    def client(self, service, **_):
        """Itself."""
        return self

    def invoke_endpoint(self, **_):
        """One answer."""
        return {"Body": io.BytesIO(b"1\n"), "ContentType": "text/csv"}


class Looks:
    """What may answer, as a test says; counts how often it was looked at."""

    def __init__(self, digests, seconds=0.0):
        self.digests, self.seconds, self.count = digests, seconds, 0

    def __call__(self, name):
        """One look."""
        self.count += 1
        time.sleep(self.seconds)
        if isinstance(self.digests, Exception):
            raise self.digests
        return self.digests


def ask(invocations, archive="ours", seconds=2.0):
    """The status of one request."""
    return invocations.invoke(
        "e-a", "real", b"1\n", "text/csv", "text/csv", archive, seconds
    ).status


def test_requests_at_once_look_once():
    """Twenty requests, with nothing known and again when what is known has grown old."""
    looks = Looks({"ours"}, seconds=0.05)
    invocations = Invocations(Runtime(), looks, 0.2)
    with ThreadPoolExecutor(20) as pool:
        first = list(pool.map(lambda _: ask(invocations), range(20)))
        after_first = looks.count
        time.sleep(0.25)
        second = list(pool.map(lambda _: ask(invocations), range(20)))

    assert {200} == {*first, *second}
    assert (1, 2) == (after_first, looks.count)


def test_a_throttled_look_leaves_what_was_seen_a_moment_ago_and_no_longer():
    """SageMaker refuses to tell: a few seconds' knowledge goes on, then nothing is taken."""
    looks = Looks({"ours"})
    invocations = Invocations(Runtime(), looks, 0.1)
    assert 200 == ask(invocations)
    looks.digests = Retryable("endpoint", "ThrottlingException", "wait")

    time.sleep(0.15)
    assert 200 == ask(invocations)
    time.sleep(0.45)
    with pytest.raises(Retryable, match="Throttling"):
        ask(invocations)


def test_what_serves_another_model_is_not_looked_at_by_every_request():
    """A wrong endpoint costs a few looks a second, however many ask, and is right again soon."""
    looks = Looks({"theirs"})
    invocations = Invocations(Runtime(), looks, 1.0)
    for _ in range(50):
        with pytest.raises(Retryable, match="another model"):
            ask(invocations)
    assert 1 == looks.count

    looks.digests = {"ours"}
    time.sleep(0.3)
    assert 200 == ask(invocations)
    assert 2 == looks.count


def test_a_look_that_hangs_holds_no_request_longer_than_its_time():
    """One thread waits for SageMaker; the others are refused when their time is over."""
    looks = Looks({"ours"}, seconds=1.0)
    invocations = Invocations(Runtime(), looks, 1.0)
    looking = threading.Thread(target=ask, args=(invocations,))
    looking.start()
    time.sleep(0.05)
    began = time.monotonic()

    with pytest.raises(Retryable, match="does not tell its state"):
        ask(invocations, seconds=0.1)

    assert time.monotonic() - began < 0.8
    looking.join()
