"""The contract of tests/contract/test_ledger.py while calls fail."""

from __future__ import annotations

from suites import contract

globals().update(contract("test_ledger"))
