"""A first Great Expectations suite from a sample: it holds on the sample, with slack.

The suite is for catching accidents (a column gone empty, other units, new codes), so its bounds
are wide; whoever knows the data tightens them. New codes are shown as a warning, the rest refuses
a partition. All of it can be decided from a sample of rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

_MOST_LEVELS = 32
_MOSTLY = 0.9


def suggest(frame: pl.DataFrame, spec: PipelineSpec) -> dict[str, Any]:
    """A suite (``name``, ``expectations``) for a typed table, or for the audit table of images.

    The audit table of images has the columns label, width, height, brightness and contrast.
    """
    target = spec.columns.target
    expectations = [_expect("expect_column_values_to_not_be_null", target)]
    if spec.columns.task == "regression":
        expectations += _number(frame[target])
    else:
        labels = sorted(frame[target].unique().to_list())
        expectations.append(_expect("expect_column_values_to_be_in_set", target, value_set=labels))
    if spec.source.format == "images":
        for name in ("width", "height", "brightness", "contrast"):
            expectations += _number(frame[name], least=0.0)
    for feature in spec.columns.features:
        series = frame[feature.name]
        expectations += _present(series)
        if feature.type == "number":
            expectations += _number(series, least=feature.min, most=feature.max)
        else:
            expectations += _levels(series)
    return {"name": spec.name or "expectations", "expectations": expectations}


def _expect(kind: str, column: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": {"column": column, **kwargs}}


def _present(series: pl.Series) -> list[dict[str, Any]]:
    """At most a tenth of the rows more may be missing than in the sample."""
    share = 1 - series.null_count() / max(1, len(series))
    mostly = math.floor(share * 100 - 10 + 1e-9) / 100
    if mostly <= 0:
        return []
    return [_expect("expect_column_values_to_not_be_null", series.name, mostly=mostly)]


def _number(
    series: pl.Series, *, least: float | None = None, most: float | None = None
) -> list[dict[str, Any]]:
    """The sample's range and half of it again on both sides, within the declared range."""
    values = series.drop_nulls().to_numpy()
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    slack = (high - low) / 2 or abs(high) or 1.0
    lower, upper = _down(low - slack), -_down(-(high + slack))
    if least is not None:
        lower = max(lower, min(least, low))
    if most is not None:
        upper = min(upper, max(most, high))
    return [
        _expect(
            "expect_column_values_to_be_between",
            series.name,
            min_value=lower,
            max_value=upper,
            mostly=0.99,
        )
    ]


def _levels(series: pl.Series) -> list[dict[str, Any]]:
    """A tenth of the rows may have levels that the sample does not have."""
    levels = sorted(series.drop_nulls().unique().to_list())
    if not 0 < len(levels) <= _MOST_LEVELS:
        return []
    return [
        {
            **_expect(
                "expect_column_values_to_be_in_set", series.name, value_set=levels, mostly=_MOSTLY
            ),
            "severity": "warning",  # a new level is news, and the encoding copes with it
        }
    ]


def _down(value: float) -> float:
    """The next lower number of two significant digits: bounds that a person can read."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    lower = math.floor(value / unit) * unit
    return float(f"{lower:.2g}")
