"""The contract of tests/contract/test_approvals.py while calls fail."""

from __future__ import annotations

from suites import contract

globals().update(contract("test_approvals"))
