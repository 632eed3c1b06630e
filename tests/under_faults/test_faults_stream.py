"""The contract of ``ports.Stream`` while calls fail."""

from __future__ import annotations

import pytest
from failing import wrapped
from streams import Local
from suites import contract

FILE = "is about the local file"
globals().update(
    contract(
        "test_stream",
        fixtures=["place"],
        without={
            "test_the_file_does_not_grow": FILE,
            "test_processes_that_put": "is about processes that have no faults",
        },
    )
)


@pytest.fixture
def place(root, clock, plan):
    """A stream whose clients fail."""

    class Failing(Local):
        def client(self, *given):
            return wrapped(super().client(*given), plan, "stream")

    found = Failing(root, clock)
    yield found
    found.end()
