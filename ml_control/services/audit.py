"""The data checks that a partition must pass before it is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import digest_of
from ml_control.core.records import CheckOutcome
from ml_control.errors import MlControlError
from ml_control.services.expectations import run_suite
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

#: The checks of every audit, in the order of their outcomes.
CHECK_NAMES = ("expectations", "row_count", "schema", "single_class", "duplicates")
#: Part of every quality configuration: raised when a check comes to mean something else.
RULES = 1
_NAMED_AT_MOST = 5


def quality_digest(spec: PipelineSpec, suite: Mapping[str, Any] | None) -> str:
    """Names the configuration that checks run under: an audit under another one does not count.

    It covers the suite's content (not its file name), the declared columns and ``min_rows``.
    """
    return digest_of(
        {
            "rules": RULES,
            "checks": list(CHECK_NAMES),
            "format": spec.source.format,
            "columns": spec.columns.model_dump(mode="json"),
            "min_rows": spec.quality.min_rows,
            "suite": suite,
        }
    )


class Auditor:
    """All checks on one partition's records, which come in blocks.

    Each block has the declared features and the target, and may have further columns (row ids,
    splits, pixels). ``reference`` is the profile that drift is measured against, if there is one.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        suite: Mapping[str, Any] | None,
        reference: Mapping[str, Any] | None = None,
    ) -> None:
        self._spec, self._suite, self._reference = spec, suite, reference
        self._blocks: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next block of rows."""
        self._blocks.append(frame)

    def outcomes(self) -> tuple[CheckOutcome, ...]:
        """The outcome of each check, named and ordered as in ``CHECK_NAMES``.

        A check that cannot be made fails with the reason; nothing is raised.
        """
        import polars as pl

        frame = pl.concat(self._blocks) if self._blocks else pl.DataFrame()
        return audit_frame(frame, self._spec, self._suite)


class SuiteCheck:
    """The expectations alone, on rows that come in blocks."""

    def __init__(self, suite: Mapping[str, Any] | None, *, name: str) -> None:
        self._suite, self._name = suite, name
        self._blocks: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next block of rows."""
        self._blocks.append(frame)

    def outcome(self) -> CheckOutcome:
        """One outcome over the whole suite. Raises ``InvalidSpec`` for a suite of a wrong form."""
        import polars as pl

        frame = pl.concat(self._blocks) if self._blocks else pl.DataFrame()
        return check_expectations(frame, self._suite, name=self._name)


def audit_frame(
    frame: pl.DataFrame, spec: PipelineSpec, suite: Mapping[str, Any] | None
) -> tuple[CheckOutcome, ...]:
    """The outcomes of all checks, named as in ``CHECK_NAMES``, on one partition's records.

    ``frame`` has the declared features and the target, and may have further columns (row ids,
    splits, pixels). A check that cannot be made fails with the reason; nothing is raised.
    """
    checks: dict[str, Callable[[], CheckOutcome]] = {
        "expectations": lambda: check_expectations(frame, suite, name=spec.name),
        "row_count": lambda: _row_count(frame, spec),
        "schema": lambda: _schema(frame, spec),
        "single_class": lambda: _single_class(frame, spec),
        "duplicates": lambda: _duplicates(frame, spec),
    }
    return tuple(_made(name, checks[name]) for name in CHECK_NAMES)


def _made(name: str, check: Callable[[], CheckOutcome]) -> CheckOutcome:
    try:
        return check()
    except MlControlError as error:
        reason = f"{error.object}: {error.reason}"
    except Exception as error:  # a check that broke has proven nothing, whatever broke it
        reason = f"{type(error).__name__}: {error}"
    return CheckOutcome(name=name, passed=False, reason=f"could not be made: {reason}")


def check_expectations(
    frame: pl.DataFrame, suite: Mapping[str, Any] | None, *, name: str
) -> CheckOutcome:
    """One outcome over the whole suite; ``details``: a markdown ``table``, and ``expectations``.

    Passes without a suite. Raises ``InvalidSpec`` for a suite of the wrong form.
    """
    if suite is None:
        return CheckOutcome(name="expectations", passed=True, reason="no suite is configured")
    outcomes = run_suite(suite, frame, name=name or "partition")
    failed = [outcome for outcome in outcomes if not outcome.passed]
    reason = f"all {len(outcomes)} expectations hold"
    if failed:
        told = "; ".join(f"{one.name}: {one.reason}" for one in failed[:_NAMED_AT_MOST])
        more = f"; and {len(failed) - _NAMED_AT_MOST} more" if len(failed) > _NAMED_AT_MOST else ""
        reason = f"{len(failed)} of {len(outcomes)} expectations failed: {told}{more}"
    return CheckOutcome(
        name="expectations",
        passed=not failed,
        reason=reason,
        details={
            "table": _markdown(outcomes),
            "expectations": [outcome.to_json() for outcome in outcomes],
        },
    )


def _markdown(outcomes: list[CheckOutcome]) -> str:
    """A markdown table, one row an expectation, as the user interface shows it."""
    lines = ["| expectation | result | found |", "|---|---|---|"]
    for one in outcomes:
        cells = (one.name, "passed" if one.passed else "FAILED", one.reason)
        # Data values may hold anything; these characters would break out of their cell.
        clean = (
            " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
            for cell in cells
        )
        lines.append(f"| {' | '.join(clean)} |")
    return "\n".join(lines)


def _row_count(frame: pl.DataFrame, spec: PipelineSpec) -> CheckOutcome:
    rows, least = frame.height, spec.quality.min_rows
    return CheckOutcome(
        name="row_count",
        passed=rows >= least,
        reason=f"{rows} rows, at least {least} needed",
        details={"rows": rows, "min_rows": least},
    )


def _schema(frame: pl.DataFrame, spec: PipelineSpec) -> CheckOutcome:
    """Every declared column is there with a type that fits, and every row has its target."""
    wanted = {feature.name: feature.type for feature in spec.columns.features}
    number = spec.columns.task == "regression"
    faults = [fault for name, kind in wanted.items() if (fault := _type_fault(frame, name, kind))]
    target = spec.columns.target
    if fault := _type_fault(frame, target, "number" if number else "category"):
        faults.append(fault)
    else:
        column = frame.get_column(target)
        missing = column.null_count()
        if number:
            missing += int((~column.is_finite()).sum()) if column.dtype.is_float() else 0
        if missing:
            faults.append(f"{target}: {missing} rows have no usable target")
    return CheckOutcome(
        name="schema",
        passed=not faults,
        reason="; ".join(faults) or f"{len(wanted) + 1} declared columns have their types",
        details={"columns": {name: str(kind) for name, kind in frame.schema.items()}},
    )


def _type_fault(frame: pl.DataFrame, name: str, kind: str) -> str:
    import polars as pl

    dtype = frame.schema.get(name)
    if dtype is None:
        return f"{name}: there is no such column"
    if kind == "number":
        fits = dtype.is_numeric()
    else:
        texts = (pl.String, pl.Categorical, pl.Enum, pl.Boolean)
        fits = dtype.is_integer() or any(dtype == one for one in texts)
    return "" if fits else f"{name}: type {dtype} where a {kind} is declared"


def _single_class(frame: pl.DataFrame, spec: PipelineSpec) -> CheckOutcome:
    if spec.columns.task == "regression":
        return CheckOutcome(
            name="single_class", passed=True, reason="regression: the target has no classes"
        )
    counts = frame.get_column(spec.columns.target).drop_nulls().value_counts(sort=True)
    found = {str(label): int(count) for label, count in counts.head(1000).iter_rows()}
    classes = counts.height
    passed = classes >= 2
    return CheckOutcome(
        name="single_class",
        passed=passed,
        reason=f"{classes} classes"
        if passed
        else f"only the class {next(iter(found))!r} occurs"
        if found
        else "no row has a class",
        details={"classes": classes, "counts": found},
    )


def _duplicates(frame: pl.DataFrame, spec: PipelineSpec) -> CheckOutcome:
    """How many rows repeat an earlier one exactly, in the declared columns.

    Repetition is common in honest data (few categories), so only rows that are all the same
    fail. For images, the declared columns are the target alone, so every binary or list column
    is compared as well: they hold the pixels.
    """
    rows = frame.height
    declared = {spec.columns.target, *(feature.name for feature in spec.columns.features)}
    compared = [
        name for name, dtype in frame.schema.items() if name in declared or _is_pixels(dtype)
    ]
    if spec.source.format == "images" and compared in ([spec.columns.target], []):
        return CheckOutcome(
            name="duplicates", passed=True, reason="not compared: the frame has no pixels"
        )
    distinct = frame.select(compared).unique().height if rows and compared else 0
    repeated = rows - distinct
    share = repeated / rows if rows else 0.0
    same = rows > 1 and distinct <= 1
    return CheckOutcome(
        name="duplicates",
        passed=not same,
        reason="all rows are identical" if same else f"{repeated} of {rows} rows repeat another",
        details={"repeated": repeated, "share": share, "rows": rows},
    )


def _is_pixels(dtype: pl.DataType) -> bool:
    import polars as pl

    return dtype == pl.Binary or dtype.is_nested()
