"""What every gate has: its form, and how it says no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ml_control.core.evidence import Evidence
from ml_control.core.records import GateResult
from ml_control.spec import Gates

Gate = Callable[[Evidence, Gates], GateResult]

_NAMED_AT_MOST = 3


def folded(name: str) -> str:
    """A name in the characters that an asset check may have."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def refused(name: str, reason: str, required: str) -> GateResult:
    """A gate that found nothing to measure, or something that cannot be measured."""
    return GateResult(name=name, passed=False, reason=reason, required=required)


def some(faults: Sequence[str]) -> str:
    """The first few of many, and how many more there are."""
    more = len(faults) - _NAMED_AT_MOST
    return "; ".join(faults[:_NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")


def plain(value: Any) -> Any:
    """A value that survives JSON."""
    return value if isinstance(value, str | int | bool | None) else str(value)


def bounds(low: float | None, high: float | None) -> str:
    """Both bounds in words, such as ``>= 0.8 and <= 0.9``."""
    pairs = ((">=", low), ("<=", high))
    return " and ".join(f"{sign} {limit:g}" for sign, limit in pairs if limit is not None)


def outside(value: float, low: float | None, high: float | None) -> str:
    """On which side a value is out of its bounds; empty when it is within.

    Written as "not within", so that a bound that is no number lets nothing pass.
    """
    if low is not None and not value >= low:
        return "below the smallest passing value"
    if high is not None and not value <= high:
        return "above the largest passing value"
    return ""
