"""The contract of tests/contract/test_notifications.py while calls fail."""

from __future__ import annotations

from suites import contract

globals().update(
    contract(
        "test_notifications",
        without={"test_files_are_on_the_disk_before": "counts what the file system is asked"},
    )
)
