"""The contract of ``ports.Stream`` while calls fail."""

from __future__ import annotations

import pytest
from conftest import wrapped
from suites import contract

from ml_control.local.stream import SqliteStream

globals().update(
    contract(
        "test_stream",
        fixtures=["two"],
        without={
            "test_the_file_does_not_grow": "is about the local file",
            "test_processes_that_put": "is about processes that have no faults",
            "test_a_stream_that_nobody": "is about the local file",
        },
    )
)
TRIES, RETRY = 3, 1.0


@pytest.fixture
def two(root, clock, plan):
    """Two clients of one stream."""
    clients = [SqliteStream(root, TRIES, RETRY, clock) for _ in range(2)]
    yield [wrapped(client, plan, "stream") for client in clients]
    for client in clients:
        client.close()
