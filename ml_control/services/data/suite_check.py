"""The expectations of a pipeline as one data check, on rows that come in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.records import CheckOutcome
from ml_control.core.sampling import RowSample
from ml_control.services.data.expectations import run_suite
from ml_control.services.data.suites import MOST_ROWS, columns_named, expectations_of

if TYPE_CHECKING:
    import polars as pl

_NAMED_AT_MOST = 5


class SuiteCheck:
    """The expectations alone: on all rows up to a million, on a sample of a million above.

    Only the columns that the suite reads are held.
    """

    def __init__(self, suite: Mapping[str, Any] | None, *, name: str) -> None:
        self._suite, self._name = suite, name
        self._sample = RowSample(MOST_ROWS)
        self._wanted: frozenset[str] | None = None
        self._read = False

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next block of rows."""
        if self._suite is None:
            return
        if not self._read:
            self._wanted, self._read = _columns_read(self._suite), True
        self._sample.add(_lean(frame, self._wanted))

    def outcome(self) -> CheckOutcome:
        """One outcome over the whole suite; ``details``: a markdown ``table``, ``expectations``.

        Passes without a suite. One that only expectations of severity ``warning`` fail is not
        blocking; a failed one of severity ``info`` is told and fails nothing. Raises
        ``InvalidSpec`` for a suite of a wrong form.
        """
        if self._suite is None:
            return CheckOutcome(name="expectations", passed=True, reason="no suite is configured")
        frame, rows = self._sample.frame(), self._sample.seen
        outcomes = run_suite(self._suite, frame, name=self._name or "partition", rows=rows)
        failed = [one for one in outcomes if not one.passed]
        counted = [one for one in failed if one.details["severity"] != "info"]
        refusing = [one for one in failed if one.refuses]
        reason = f"all {len(outcomes)} expectations hold"
        if failed:
            # What refuses comes first: there may be no room for all.
            ranked = sorted(failed, key=lambda one: not one.refuses)
            told = "; ".join(f"{_label(one)}: {one.reason}" for one in ranked[:_NAMED_AT_MOST])
            more = len(failed) - _NAMED_AT_MOST
            reason = f"{len(failed)} of {len(outcomes)} expectations failed: {told}"
            reason += f"; and {more} more" if more > 0 else ""
        details: dict[str, Any] = {
            "table": table(
                ("expectation", "result", "found"),
                (
                    (_label(one), "passed" if one.passed else "FAILED", one.reason)
                    for one in outcomes
                ),
            ),
            "expectations": [one.to_json() for one in outcomes],
            "failed": len(failed),
            "rows": rows,
        }
        if not self._sample.whole:
            reason = f"on a sample of {frame.height:,} of {rows:,} rows: {reason}"
            details |= {"sampled": True, "sampled_rows": frame.height}
        return CheckOutcome(
            name="expectations",
            passed=not counted,
            reason=reason,
            details=details,
            blocking=bool(refusing) or not counted,
        )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, as the user interface shows it."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for cells in rows:
        # Data values may hold anything; these characters would break out of their cell.
        clean = (
            " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
            for cell in cells
        )
        lines.append(f"| {' | '.join(clean)} |")
    return "\n".join(lines)


def _label(one: CheckOutcome) -> str:
    severity = one.details["severity"]
    return one.name if severity == "critical" else f"{one.name} [{severity}]"


def _columns_read(suite: Mapping[str, Any]) -> frozenset[str] | None:
    """The columns whose values the suite reads; None when it may be any."""
    found: set[str] = set()
    for one in expectations_of(suite):
        if "row_condition" in one.kwargs:
            return None
        found.update(columns_named(one.kind, one.kwargs))
    return frozenset(found)


def _lean(frame: pl.DataFrame, wanted: frozenset[str] | None) -> pl.DataFrame:
    """The frame with nulls in columns that nothing reads: expectations on the table name them.

    Pixels cannot be named by a suite, so they are never held.
    """
    import polars as pl

    return frame.with_columns(
        pl.lit(None, dtype=pl.Boolean).alias(name)
        for name, dtype in frame.schema.items()
        if dtype.is_nested() or dtype == pl.Binary or (wanted is not None and name not in wanted)
    )
