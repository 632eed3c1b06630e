"""The contract of tests/contract/test_ledger.py while calls fail."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from suites import contract
from test_ledger import P, event

from ml_control.registry import Registry

globals().update(
    contract(
        "test_ledger",
        without={"test_numbers_order_the_records": "a failed call may leave numbers out"},
    )
)


def test_no_number_is_given_twice(two, clock):
    """Four writers at once whose calls fail: every event is there, each with its own number."""

    def write(number):
        ledger = Registry(two[number % 2], clock=clock).ledger
        for batch in range(5):
            ledger.record(P, [event(f"{number}-{batch}-{i}") for i in range(10)], [True] * 10)
        two[number % 2].close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    found = list(Registry(two[0], clock=clock).ledger.events(P))
    assert 200 == len({e.key for e in found}) == len(found)
    assert {1} == set(Counter(e.seq for e in found).values())
