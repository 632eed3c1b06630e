"""Great Expectations as a function: a suite and a frame in, one outcome an expectation out.

A frame may be a sample of a partition. What a sample cannot decide then fails, except what is
known of all rows anyway: how many there are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ml_control.core.records import CheckOutcome
from ml_control.errors import InvalidSpec
from ml_control.services.data.suites import (
    UNDECIDABLE,
    Listed,
    columns_named,
    expectations_of,
    validate_suite,
)
from ml_control.services.later import put_off

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_EXAMPLES = 5
_TEXT_AT_MOST = 200
_TAG = "ml_control_position"


def validate_suite_deep(suite: Any, columns: Iterable[str] | None = None) -> None:
    """Whether the library itself accepts each expectation and its arguments.

    Imports Great Expectations (seconds). With ``columns``, :func:`validate_suite` comes first.
    Raises ``InvalidSpec`` with the library's words.
    """
    if columns is not None:
        validate_suite(suite, columns)
    _load()
    for one in expectations_of(suite):
        try:
            _build(one)
        except Exception as error:  # the library's own pydantic errors are many and private
            raise InvalidSpec(
                f"expectations[{one.position}]",
                f"{one.kind}: {_one_line(error)}",
                "correct its kwargs",
            ) from error


def run_suite(
    suite: Mapping[str, Any],
    frame: pl.DataFrame | pd.DataFrame,
    *,
    name: str,
    rows: int | None = None,
) -> list[CheckOutcome]:
    """One outcome for each expectation, in the suite's order; ``name`` says what is checked.

    ``rows``: how many there are in all, when ``frame`` is a sample of them. ``details`` holds
    ``type``, ``kwargs``, ``severity``, ``observed``, ``unexpected_count`` and up to five
    ``unexpected`` examples. An expectation that cannot be evaluated fails, with the reason; only
    one of severity ``critical`` is blocking. Raises ``InvalidSpec`` for a suite of another form.
    Writes no files and sends nothing.
    """
    listed = list(expectations_of(suite))
    _load()
    built: list[Any] = []
    outcomes: dict[int, CheckOutcome] = {}
    sampled = rows is not None and rows > len(frame)
    for one in listed:
        if sampled and (known := _of_a_sample(one, len(frame), rows or 0)):
            outcomes[one.position] = known
            continue
        try:
            built.append(_build(one))
        except Exception as error:  # one bad expectation must not hide what the others find
            outcomes[one.position] = _not_evaluated(one, _one_line(error))
    trouble = "it gave no result"
    try:
        results = _validate(built, frame, name) if built else []
    except Exception as error:  # whatever the library raises, nothing was proven
        results, trouble = [], _one_line(error)
    for result in results:
        position = result["expectation_config"]["meta"][_TAG]
        outcomes[position] = _outcome(listed[position], result)
    return [outcomes.get(one.position) or _not_evaluated(one, trouble) for one in listed]


def _of_a_sample(one: Listed, looked: int, rows: int) -> CheckOutcome | None:
    """The outcome of what a sample cannot decide, or of what is known without it."""
    counts = one.kind.startswith("expect_table_row_count_")
    if why := UNDECIDABLE.get(one.kind) or (
        "its condition selects rows of the sample"
        if counts and "row_condition" in one.kwargs
        else ""
    ):
        trouble = f"it cannot be decided from a sample ({looked:,} of {rows:,} rows): {why}"
        return _not_evaluated(one, trouble)
    if not counts:
        return None
    low, high = one.kwargs.get("min_value"), one.kwargs.get("max_value")
    if one.kind == "expect_table_row_count_to_equal":
        low = high = one.kwargs.get("value")
    if not all(isinstance(bound, int | float) for bound in (low, high) if bound is not None):
        return _not_evaluated(one, "its bounds are no numbers")
    above = low is None or (rows > low if one.kwargs.get("strict_min") else rows >= low)
    below = high is None or (rows < high if one.kwargs.get("strict_max") else rows <= high)
    found = _not_evaluated(one, "")
    return found.model_copy(
        update={
            "passed": above and below,
            "reason": f"observed {rows}",
            "details": {**found.details, "observed": rows},
        }
    )


def _load() -> None:
    """Import the library with its usage reports off: they are decided when it is imported.

    It loads a charting library and SciPy's statistics for the reports and the distribution tests
    of a few expectations: a quarter of its modules and a third of its memory.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with put_off("altair", "scipy.stats"):
        import great_expectations.expectations  # noqa: F401 - registers them


def _build(one: Listed) -> Any:
    """The library's expectation, marked with its position: results come in another order."""
    from great_expectations.expectations.registry import get_expectation_impl

    return get_expectation_impl(one.kind)(**one.kwargs, meta={_TAG: one.position})


def _validate(built: list[Any], frame: Any, name: str) -> list[dict[str, Any]]:
    """The library's results, as JSON values."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset(name=name)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(
        batch_parameters={"dataframe": _to_pandas(frame)}
    )
    suite = gx.ExpectationSuite(name=name, expectations=built)
    result = batch.validate(
        suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": _EXAMPLES}
    )
    return [one.to_json_dict() for one in result.results]


def _to_pandas(frame: Any) -> pd.DataFrame:
    """A pandas frame; numbers with missing values become float64 with NaN."""
    import pandas as pd
    import polars as pl

    if isinstance(frame, pd.DataFrame):
        return frame
    columns: dict[str, Any] = {}
    for column in frame.get_columns():  # polars' own conversion needs pyarrow for texts
        if column.dtype.is_numeric():
            columns[column.name] = column.to_numpy()
        elif isinstance(column.dtype, pl.Array):
            columns[column.name] = list(column.to_numpy())  # views: pixels stay as they are
        elif column.dtype == pl.String:
            columns[column.name] = _shared_texts(column)
        else:
            columns[column.name] = column.to_list()
    return pd.DataFrame(columns)


def _shared_texts(column: pl.Series) -> Any:
    """Texts as objects, equal ones as one object: 8 bytes a row where values repeat."""
    import numpy as np
    import polars as pl

    different = column.drop_nulls().unique(maintain_order=True)
    places = column.replace_strict(
        different,
        pl.Series(range(len(different)), dtype=pl.UInt32),
        default=len(different),
        return_dtype=pl.UInt32,
    )
    return np.array([*different.to_list(), None], dtype=object)[places.to_numpy()]


def _outcome(one: Listed, result: Mapping[str, Any]) -> CheckOutcome:
    if trouble := _exception(result.get("exception_info") or {}):
        return _not_evaluated(one, trouble)
    found = result.get("result") or {}
    passed = result.get("success") is True
    examples = [_safe(value) for value in found.get("partial_unexpected_list", [])[:_EXAMPLES]]
    unexpected = found.get("unexpected_count")
    observed = found.get("observed_value", found.get("unexpected_percent"))
    elements = found.get("element_count")
    if elements == 0:
        # The library lets anything pass on no rows, but what is missing is never healthy.
        passed, reason = False, "there are no rows to look at"
    elif unexpected is not None:
        among = "" if elements is None else f" of {elements}"
        reason = f"{unexpected}{among} values unexpected"
        if examples and not passed:
            reason += ", such as " + ", ".join(map(repr, examples[:3]))
    else:
        reason = f"observed {_safe(observed)}"
    return CheckOutcome(
        name=_title(one),
        blocking=one.blocking,
        passed=passed,
        reason=reason,
        details={
            "type": one.kind,
            "kwargs": _safe(one.kwargs),
            "severity": one.severity,
            "observed": _safe(observed),
            "unexpected_count": unexpected,
            "unexpected": examples,
        },
    )


def _not_evaluated(one: Listed, trouble: str) -> CheckOutcome:
    return CheckOutcome(
        name=_title(one),
        blocking=one.blocking,
        passed=False,
        reason=f"could not be evaluated: {trouble}",
        details={
            "type": one.kind,
            "kwargs": _safe(one.kwargs),
            "severity": one.severity,
            "observed": None,
            "unexpected_count": None,
            "unexpected": [],
        },
    )


def _title(one: Listed) -> str:
    columns = ", ".join(columns_named(one.kind, one.kwargs))
    return f"{one.kind}({columns})"


def _exception(info: Mapping[str, Any]) -> str:
    """The message of a raised exception; the library nests them by metric, or does not."""
    for one in (info, *info.values()):
        if isinstance(one, Mapping) and one.get("raised_exception"):
            return _one_line(one.get("exception_message") or "no message")
    return ""


def _one_line(error: Any) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _TEXT_AT_MOST else text[: _TEXT_AT_MOST - 1] + "…"


def _safe(value: Any) -> Any:
    """A value that survives strict JSON: no NaN, no long texts, no foreign types."""
    if isinstance(value, Mapping):
        return {str(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_safe(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return _one_line(value)
