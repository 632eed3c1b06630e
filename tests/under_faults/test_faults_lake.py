"""The contract of the lake while calls fail."""

from __future__ import annotations

import pytest
from failing import wrapped
from suites import contract

from ml_control.lake import Lake

globals().update(contract("test_lake", fixtures=["two"]))


@pytest.fixture
def two(tmp_path, plan):
    """Two clients of one lake."""
    return tuple(wrapped(Lake.local(tmp_path / "lake"), plan, "lake") for _ in range(2))
