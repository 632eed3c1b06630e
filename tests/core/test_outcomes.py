"""What an outcome is worth to an experiment."""

from __future__ import annotations

import math

import pytest

from ml_control.core.outcomes import value_of
from ml_control.spec import LiveMetric

ACCURACY = LiveMetric()
ERROR = LiveMetric(name="error", kind="mean", higher_is_better=False)
REVENUE = LiveMetric(name="revenue", kind="mean")


@pytest.mark.parametrize(
    ("metric", "label", "outcome", "value"),
    [
        (ACCURACY, "3", "3", 1.0),
        (ACCURACY, "3", 3, 1.0),
        (ACCURACY, "3", 3.0, 1.0),
        (ACCURACY, "3.0", 3, 1.0),
        (ACCURACY, "three", 3, 0.0),
        (ACCURACY, "3", 10**400, 0.0),
        (ACCURACY, "true", True, 1.0),
        (ACCURACY, "True", True, 1.0),
        (ACCURACY, "yes", "no", 0.0),
        (ACCURACY, None, "no", None),
        (ACCURACY, "yes", None, None),
        (ACCURACY, "yes", {"accuracy": 1}, 1.0),
        (ACCURACY, "yes", {"accuracy": 0.5}, None),
        (ACCURACY, "yes", {"revenue": 1}, None),
        (ERROR, None, 3.0, 1.5),
        (ERROR, None, "3.0", None),
        (ERROR, None, True, None),
        (ERROR, None, math.nan, None),
        (REVENUE, "yes", {"revenue": 12.5}, 12.5),
        (REVENUE, "yes", {"revenue": math.inf}, None),
        (REVENUE, "yes", {"revenue": "12"}, None),
        (REVENUE, "yes", {"revenue": 10**400}, None),
        (REVENUE, "yes", {"revenue": -1e101}, None),
        (REVENUE, "yes", 12.5, None),
    ],
)
def test_the_value_of_an_outcome(metric, label, outcome, value):
    """A right label is 1, an error is absolute, a named number is itself; else there is none."""
    assert value == value_of(metric, label, 1.5, outcome)
