"""Great Expectations as a function: a suite and a frame in, one outcome an expectation out.

Great Expectations takes seconds to import, so :func:`validate_suite`, which runs whenever
definitions load, knows its vocabulary without it; :func:`validate_suite_deep` asks the library.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ml_control.core.records import CheckOutcome
from ml_control.errors import InvalidSpec

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

#: What Great Expectations 1.x can check on a data frame (its SQL-only expectations are left out).
EXPECTATION_TYPES = frozenset(
    {
        "expect_column_distinct_values_to_be_in_set",
        "expect_column_distinct_values_to_contain_set",
        "expect_column_distinct_values_to_equal_set",
        "expect_column_kl_divergence_to_be_less_than",
        "expect_column_max_to_be_between",
        "expect_column_mean_to_be_between",
        "expect_column_median_to_be_between",
        "expect_column_min_to_be_between",
        "expect_column_most_common_value_to_be_in_set",
        "expect_column_pair_values_a_to_be_greater_than_b",
        "expect_column_pair_values_to_be_equal",
        "expect_column_pair_values_to_be_in_set",
        "expect_column_proportion_of_non_null_values_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_quantile_values_to_be_between",
        "expect_column_stdev_to_be_between",
        "expect_column_sum_to_be_between",
        "expect_column_to_exist",
        "expect_column_type_to_be",
        "expect_column_unique_value_count_to_be_between",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_value_z_scores_to_be_less_than",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_dateutil_parseable",
        "expect_column_values_to_be_decreasing",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_in_type_list",
        "expect_column_values_to_be_increasing",
        "expect_column_values_to_be_json_parseable",
        "expect_column_values_to_be_null",
        "expect_column_values_to_be_of_type",
        "expect_column_values_to_be_unique",
        "expect_column_values_to_match_json_schema",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_match_regex_list",
        "expect_column_values_to_match_strftime_format",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_not_be_outliers",
        "expect_column_values_to_not_match_regex",
        "expect_column_values_to_not_match_regex_list",
        "expect_compound_columns_to_be_unique",
        "expect_multicolumn_sum_to_equal",
        "expect_multicolumn_values_to_be_equal",
        "expect_select_column_values_to_be_unique_within_record",
        "expect_table_column_count_to_be_between",
        "expect_table_column_count_to_equal",
        "expect_table_columns_to_match_ordered_list",
        "expect_table_columns_to_match_set",
        "expect_table_row_count_to_be_between",
        "expect_table_row_count_to_equal",
    }
)
_KEYS = frozenset({"type", "kwargs", "meta", "id", "severity", "notes", "description"})
_EXAMPLES = 5
_TEXT_AT_MOST = 200
_TAG = "ml_control_position"


def validate_suite(suite: Any, columns: Iterable[str]) -> None:
    """Whether a parsed suite has the right form, without importing Great Expectations.

    The form is ``{"name": ..., "expectations": [{"type": ..., "kwargs": {...}}, ...]}``.
    ``columns`` are the columns that the checked frames have. Raises ``InvalidSpec``, naming the
    expectation by its position, for another form, a type that does not exist or cannot be
    checked on a data frame, and a column that is not among ``columns``.
    """
    known = set(columns)
    for position, kind, kwargs in _expectations(suite):
        where = f"expectations[{position}]"
        if kind not in EXPECTATION_TYPES:
            raise InvalidSpec(
                where,
                f"{kind!r} is not an expectation on a data frame{_nearest(kind)}",
                "see the gallery of expectations of Great Expectations 1.x",
            )
        missing = sorted(set(_columns_named(kind, kwargs)) - known)
        if missing:
            raise InvalidSpec(
                where,
                f"{kind} names {', '.join(map(repr, missing))}, which the data does not have",
                f"the columns are {', '.join(sorted(known))}",
            )


def validate_suite_deep(suite: Any, columns: Iterable[str] | None = None) -> None:
    """Whether the library itself accepts each expectation and its arguments.

    Imports Great Expectations (seconds). With ``columns``, :func:`validate_suite` comes first.
    Raises ``InvalidSpec`` with the library's words.
    """
    if columns is not None:
        validate_suite(suite, columns)
    _load()
    for position, kind, kwargs in _expectations(suite):
        try:
            _build(position, kind, kwargs)
        except Exception as error:  # the library's own pydantic errors are many and private
            raise InvalidSpec(
                f"expectations[{position}]", f"{kind}: {_one_line(error)}", "correct its kwargs"
            ) from error


def run_suite(
    suite: Mapping[str, Any], frame: pl.DataFrame | pd.DataFrame, *, name: str
) -> list[CheckOutcome]:
    """One outcome for each expectation, in the suite's order; ``name`` says what is checked.

    ``details`` holds ``type``, ``kwargs``, ``observed``, ``unexpected_count`` and up to five
    ``unexpected`` examples. An expectation that cannot be evaluated fails, with the reason; every
    expectation counts, whatever its severity. Raises ``InvalidSpec`` for a suite of another form.
    Writes no files and sends nothing.
    """
    listed = list(_expectations(suite))
    _load()
    built: list[Any] = []
    outcomes: dict[int, CheckOutcome] = {}
    for position, kind, kwargs in listed:
        try:
            built.append(_build(position, kind, kwargs))
        except Exception as error:  # one bad expectation must not hide what the others find
            outcomes[position] = _not_evaluated(kind, kwargs, _one_line(error))
    trouble = "it gave no result"
    try:
        results = _validate(built, frame, name) if built else []
    except Exception as error:  # whatever the library raises, nothing was proven
        results, trouble = [], _one_line(error)
    for result in results:
        position = result["expectation_config"]["meta"][_TAG]
        _, kind, kwargs = listed[position]
        outcomes[position] = _outcome(kind, kwargs, result)
    return [
        outcomes.get(position) or _not_evaluated(kind, kwargs, trouble)
        for position, kind, kwargs in listed
    ]


def _expectations(suite: Any) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Position, type and arguments of each expectation of a suite of the right form."""
    listed = suite.get("expectations") if isinstance(suite, Mapping) else None
    if not isinstance(listed, list):
        raise InvalidSpec(
            "expectations",
            "a suite is an object with a list 'expectations'",
            'write {"name": ..., "expectations": [{"type": ..., "kwargs": {...}}]}',
        )
    if not listed:
        raise InvalidSpec(
            "expectations",
            "the suite has no expectations, so it checks nothing",
            "write one, or leave quality.expectations out",
        )
    for position, one in enumerate(listed):
        where = f"expectations[{position}]"
        if isinstance(one, Mapping) and "expectation_type" in one:
            raise InvalidSpec(where, "'expectation_type' is of version 0", "write 'type'")
        if not isinstance(one, Mapping) or not isinstance(one.get("type"), str):
            raise InvalidSpec(where, "an expectation is an object with a text 'type'")
        kwargs = one.get("kwargs", {})
        if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
            raise InvalidSpec(where, "'kwargs' is not an object")
        if unknown := sorted(map(str, set(one) - _KEYS)):
            raise InvalidSpec(
                where,
                f"unknown keys {', '.join(unknown)}",
                f"known are {', '.join(sorted(_KEYS))}; arguments belong under 'kwargs'",
            )
        yield position, one["type"], dict(kwargs)


def _columns_named(kind: str, kwargs: Mapping[str, Any]) -> Iterator[str]:
    for key in ("column", "column_A", "column_B"):
        if isinstance(kwargs.get(key), str):
            yield kwargs[key]
    listed = kwargs.get("column_list")
    # The table's own expectations list the columns that there should be, not ones to read.
    if isinstance(listed, list) and not kind.startswith("expect_table_"):
        yield from (column for column in listed if isinstance(column, str))


def _nearest(kind: str) -> str:
    import difflib

    close = difflib.get_close_matches(kind, EXPECTATION_TYPES, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _load() -> None:
    """Import the library with its usage reports off: they are decided when it is imported."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations.expectations  # noqa: F401 - registers them


def _build(position: int, kind: str, kwargs: Mapping[str, Any]) -> Any:
    """The library's expectation, marked with its position: results come in another order."""
    from great_expectations.expectations.registry import get_expectation_impl

    return get_expectation_impl(kind)(**kwargs, meta={_TAG: position})


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
        else:
            columns[column.name] = column.to_list()
    return pd.DataFrame(columns)


def _outcome(kind: str, kwargs: Mapping[str, Any], result: Mapping[str, Any]) -> CheckOutcome:
    if trouble := _exception(result.get("exception_info") or {}):
        return _not_evaluated(kind, kwargs, trouble)
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
        name=_title(kind, kwargs),
        passed=passed,
        reason=reason,
        details={
            "type": kind,
            "kwargs": _safe(dict(kwargs)),
            "observed": _safe(observed),
            "unexpected_count": unexpected,
            "unexpected": examples,
        },
    )


def _not_evaluated(kind: str, kwargs: Mapping[str, Any], trouble: str) -> CheckOutcome:
    return CheckOutcome(
        name=_title(kind, kwargs),
        passed=False,
        reason=f"could not be evaluated: {trouble}",
        details={
            "type": kind,
            "kwargs": _safe(dict(kwargs)),
            "observed": None,
            "unexpected_count": None,
            "unexpected": [],
        },
    )


def _title(kind: str, kwargs: Mapping[str, Any]) -> str:
    columns = ", ".join(_columns_named(kind, kwargs))
    return f"{kind}({columns})"


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
