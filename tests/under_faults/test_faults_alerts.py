"""The contract of telling people while calls fail: at least once, and kept whole."""

from __future__ import annotations

import pytest
from failing import wrapped
from suites import contract
from test_alerts import Lines

globals().update(
    contract(
        "test_alerts",
        fixtures=["way"],
        only=[
            "test_everybody_is_told_the_whole_alert",
            "test_a_trouble_is_told_once_as_long_as_it_lasts",
            "test_an_alert_that_ended_before_it_was_sent_is_still_sent",
            "test_the_newest_comes_first",
        ],
    )
)


@pytest.fixture
def way(file, plan):
    """Alerts of a file whose clients fail."""

    class Failing(Lines):
        def client(self):
            return wrapped(super().client(), plan, "alerts")

    return Failing(file)
