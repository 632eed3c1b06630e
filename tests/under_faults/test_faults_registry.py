"""The contract of tests/contract/test_registry.py while calls fail."""

from __future__ import annotations

from suites import contract

globals().update(
    contract(
        "test_registry",
        without={
            "test_the_lease_of_a_killed": "is about a process that has no faults",
            "test_holding_renews": "is about seconds",
        },
    )
)
