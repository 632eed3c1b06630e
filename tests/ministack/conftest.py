"""An account on ministack, the second emulator, in an environment and a process of its own."""

from __future__ import annotations

import pytest
from emulators import credentials, fresh_settings, ministack_url

from ml_control.aws.client import Clients
from ml_control.testing.account import make_account


@pytest.fixture
def account():
    """Settings of an account of this test's own, with all its parts made."""
    url = ministack_url()
    with credentials("test"):
        yield make_account(fresh_settings(url))


@pytest.fixture
def clients(account):
    """Clients of the account."""
    return Clients(account)
