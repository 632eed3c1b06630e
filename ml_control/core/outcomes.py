"""The value of a live metric for one outcome, as experiments compare it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_control.core.experiment import LARGEST
from ml_control.spec import LiveMetric


def value_of(metric: LiveMetric, label: str | None, score: float, outcome: Any) -> float | None:
    """The metric's value for a prediction and what really happened; None where it has none.

    ``accuracy``: 1 if the label was right, else 0. ``error``: the absolute difference of score and
    outcome. Any metric: the number under its name where the outcome is ``{name: number}``. A
    proportion is 0 or 1 and nothing else; numbers that are not finite, or beyond 1e100, have none.
    """
    if isinstance(outcome, Mapping):
        found = _number(outcome.get(metric.name))
    elif metric.name == "accuracy":
        found = None if label is None or outcome is None else float(is_right(label, outcome))
    elif metric.name == "error":
        number = None if isinstance(outcome, bool) else _number(outcome)
        found = None if number is None else abs(score - number)
    else:
        found = None
    if found is None or not abs(found) <= LARGEST:
        return None
    return None if metric.kind == "proportion" and found not in (0.0, 1.0) else found


def is_right(label: str, outcome: Any) -> bool:
    """Whether a label is what really happened, however the caller's JSON spells it: labels are
    texts, and training data has ``true`` or ``True`` for booleans, ``5`` or ``5.0`` for numbers.
    """
    if isinstance(outcome, bool):
        return label.lower() == str(outcome).lower()
    if isinstance(outcome, int | float):
        try:
            return float(label) == float(outcome)
        except (ValueError, OverflowError):
            return False
    return label == str(outcome)


def _number(value: Any) -> float | None:
    """As a float; None for what is no number, or is beyond what experiments add up."""
    if not isinstance(value, int | float) or not abs(value) <= LARGEST:
        return None
    return float(value)
