"""Hyperparameters drawn from a tuning job's ranges, always the same for a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from ml_control.testing.sagemaker.refused import invalid

_LOGARITHMIC = ("Logarithmic", "ReverseLogarithmic")


def check_ranges(ranges: Mapping[str, Any], static: Mapping[str, str]) -> None:
    """Raise ``Refused`` for ranges that are empty, upside down, twice there, or also static."""
    numbers = [
        *ranges.get("IntegerParameterRanges", []),
        *ranges.get("ContinuousParameterRanges", []),
    ]
    every = [*numbers, *ranges.get("CategoricalParameterRanges", [])]
    if not every:
        raise invalid("At least one hyperparameter range is required.")
    names = [item["Name"] for item in every]
    for name in names:
        if names.count(name) > 1 or name in static:
            raise invalid(f"Hyperparameter {name} is given more than once.")
    for item in numbers:
        low, high = (_number(item, edge) for edge in ("MinValue", "MaxValue"))
        if low > high:
            raise invalid(f"MinValue of {item['Name']} is greater than its MaxValue.")
        if item.get("ScalingType") == "Logarithmic" and low <= 0:
            raise invalid(f"{item['Name']}: logarithmic scaling needs values greater than 0.")
        if item.get("ScalingType") == "ReverseLogarithmic" and not 0 <= low <= high < 1:
            raise invalid(f"{item['Name']}: reverse logarithmic scaling needs values in [0, 1).")


def draw(ranges: Mapping[str, Any], source: random.Random) -> dict[str, str]:
    """One value of every range, as strings. The order of draws is the order of the ranges."""
    drawn = {}
    for item in ranges.get("IntegerParameterRanges", []):
        low, high = int(item["MinValue"]), int(item["MaxValue"])
        if item.get("ScalingType") in _LOGARITHMIC:
            value = round(_scaled(low, high, item["ScalingType"], source))
        else:
            value = source.randint(low, high)
        drawn[item["Name"]] = str(min(max(value, low), high))
    for item in ranges.get("ContinuousParameterRanges", []):
        least, most = float(item["MinValue"]), float(item["MaxValue"])
        found = _scaled(least, most, item.get("ScalingType", "Linear"), source)
        drawn[item["Name"]] = repr(min(max(found, least), most))
    for item in ranges.get("CategoricalParameterRanges", []):
        drawn[item["Name"]] = source.choice(item["Values"])
    return drawn


def _scaled(low: float, high: float, scaling: str, source: random.Random) -> float:
    if scaling == "Logarithmic":
        return math.exp(source.uniform(math.log(low), math.log(high)))
    if scaling == "ReverseLogarithmic":
        return 1.0 - math.exp(source.uniform(math.log(1 - high), math.log(1 - low)))
    return source.uniform(low, high)


def _number(item: Mapping[str, str], edge: str) -> float:
    try:
        return float(item[edge])
    except ValueError:
        raise invalid(f"{edge} of {item['Name']} is not a number: {item[edge]}") from None
