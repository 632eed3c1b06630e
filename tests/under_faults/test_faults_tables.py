"""The contract of ``ports.Tables`` while calls fail."""

from __future__ import annotations

from suites import contract

OTHERS = "is about processes that have no faults"
FILE = "is about the local file"
globals().update(
    contract(
        "test_tables",
        without={
            "test_no_update_is_lost_between_four_processes": OTHERS,
            "test_a_killed_writer": OTHERS,
            "test_a_writer_waits": OTHERS,
            "test_a_registry_locked": FILE,
            "test_a_file_that_is_no_registry": FILE,
            "test_a_damaged_file": FILE,
        },
    )
)
