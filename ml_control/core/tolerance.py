"""When two predictions count as equal: one rule for the gates, ``verify`` and the live endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

#: Of the value itself and of the usual size of values, on float32: about eight steps of the last
#: place.
TOLERANCE = 1e-6


def scale_of(expected: Sequence[Sequence[float]]) -> float:
    """The usual size of expected predictions: the median magnitude, at most 1.

    It gives a value near zero, where terms of the usual size cancelled, the rounding of those
    terms. With a fixed one, a model that answers zero would do for every target much below it.
    The median, because a few extreme rows may be of any size.
    """
    sizes = [abs(value) for row in expected for value in row]
    return min(1.0, median(sizes)) if sizes else 0.0


def allowed(expected: float, scale: float) -> float:
    """How far from an expected value an answer may be."""
    return TOLERANCE * (scale + abs(expected))
