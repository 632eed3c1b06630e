"""The contract of tests/contract/test_history.py while calls fail."""

from __future__ import annotations

from suites import contract

globals().update(
    contract(
        "test_history",
        without={
            "test_the_newest_decisions_are_read": "counts the reads",
            "test_every_hundredth": "is about anchors, which have no faults",
        },
    )
)
