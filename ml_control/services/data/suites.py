"""What a Great Expectations suite may be, told without importing the library.

Great Expectations takes seconds to import, so what runs whenever definitions load
(:func:`validate_suite`) and what ``check`` says of samples (:func:`refuse_undecidable`) knows its
vocabulary without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_control.errors import InvalidSpec

#: A partition with more rows is judged by a sample of so many.
MOST_ROWS = 1_000_000
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

#: What a sample cannot decide, and why. A share, a mean or a quantile of a million rows is that
#: of all rows to within a thousandth; what must hold in every single row is at least refuted by a
#: sample when more than a few rows in a million break it. But these are about rows that a sample
#: does not have, whatever its size. The counts of rows are not among them: they are known.
UNDECIDABLE: Mapping[str, str] = {
    "expect_column_distinct_values_to_contain_set": "a rare value may be in the other rows",
    "expect_column_distinct_values_to_equal_set": "a rare value may be in the other rows",
    "expect_column_max_to_be_between": "the largest value may be in the other rows",
    "expect_column_min_to_be_between": "the smallest value may be in the other rows",
    "expect_column_proportion_of_unique_values_to_be_between": "it shrinks as rows are added",
    "expect_column_sum_to_be_between": "it grows with the rows",
    "expect_column_unique_value_count_to_be_between": "it grows with the rows",
    "expect_column_values_to_be_decreasing": "neighbours are not both in the sample",
    "expect_column_values_to_be_increasing": "neighbours are not both in the sample",
    "expect_column_values_to_be_unique": "a value's twin may be in the other rows",
    "expect_compound_columns_to_be_unique": "a row's twin may be in the other rows",
}
_INSTEAD: Mapping[str, str] = {
    "expect_column_max_to_be_between": "expect_column_values_to_be_between",
    "expect_column_min_to_be_between": "expect_column_values_to_be_between",
    "expect_column_distinct_values_to_equal_set": "expect_column_values_to_be_in_set",
    "expect_column_sum_to_be_between": "expect_column_mean_to_be_between",
    "expect_column_values_to_be_unique": "quality.max_duplicates, which counts every row",
    "expect_compound_columns_to_be_unique": "quality.max_duplicates, which counts every row",
}
SEVERITIES = ("critical", "warning", "info")
_KEYS = frozenset({"type", "kwargs", "meta", "id", "severity", "notes", "description"})


class Listed(NamedTuple):
    """One expectation of a suite, in the suite's order."""

    position: int
    kind: str
    kwargs: dict[str, Any]
    severity: str

    @property
    def blocking(self) -> bool:
        """Whether its failure refuses the partition: ``critical``, which is the default."""
        return self.severity == "critical"


def validate_suite(suite: Any, columns: Iterable[str]) -> None:
    """Whether a parsed suite has the right form, without importing Great Expectations.

    The form is ``{"name": ..., "expectations": [{"type": ..., "kwargs": {...}}, ...]}``.
    ``columns`` are the columns that the checked frames have. Raises ``InvalidSpec``, naming the
    expectation by its position, for another form, a type that does not exist or cannot be
    checked on a data frame, and a column that is not among ``columns``.
    """
    known = set(columns)
    for position, kind, kwargs, _ in expectations_of(suite):
        where = f"expectations[{position}]"
        if kind not in EXPECTATION_TYPES:
            raise InvalidSpec(
                where,
                f"{kind!r} is not an expectation on a data frame{_nearest(kind)}",
                "see the gallery of expectations of Great Expectations 1.x",
            )
        missing = sorted(set(columns_named(kind, kwargs)) - known)
        if missing:
            raise InvalidSpec(
                where,
                f"{kind} names {', '.join(map(repr, missing))}, which the data does not have",
                f"the columns are {', '.join(sorted(known))}",
            )


def refuse_undecidable(suite: Any) -> None:
    """Raise ``InvalidSpec`` for a critical expectation that a sample of rows cannot decide.

    A partition of any size may arrive, and above a million rows the suite runs on a sample.
    """
    for position, kind, _, severity in expectations_of(suite):
        if severity == "critical" and (why := UNDECIDABLE.get(kind)):
            instead = _INSTEAD.get(kind)
            raise InvalidSpec(
                f"expectations[{position}]",
                f"{kind} cannot be decided from a sample, by which partitions of more than "
                f"{MOST_ROWS:,} rows are judged: {why}",
                'write "severity": "warning" beside it, which shows it and refuses nothing'
                + (f", or use {instead}" if instead else ""),
            )


def expectations_of(suite: Any) -> Iterator[Listed]:
    """Each expectation. Raises ``InvalidSpec`` for a suite of another form."""
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
        severity = one.get("severity", "critical")
        if severity not in SEVERITIES:
            raise InvalidSpec(
                where, f"severity {severity!r} is none of {', '.join(SEVERITIES)}", "correct it"
            )
        yield Listed(position, one["type"], dict(kwargs), severity)


def columns_named(kind: str, kwargs: Mapping[str, Any]) -> Iterator[str]:
    """The columns whose values an expectation reads."""
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
