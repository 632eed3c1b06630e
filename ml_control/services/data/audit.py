"""The data checks that a partition must pass before it is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import digest_of
from ml_control.core.drift import LEAST_ROWS, drift
from ml_control.core.leakage import scores, unjudged
from ml_control.core.records import CheckOutcome
from ml_control.core.sampling import Distinct, Levels, RowSample
from ml_control.errors import MlControlError
from ml_control.services.data.suite_check import SuiteCheck, table
from ml_control.services.data.suites import MOST_ROWS
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CHECK_NAMES", "RULES", "Auditor", "SuiteCheck", "audit_frame", "quality_digest"]

#: The checks of every audit, in the order of their outcomes.
CHECK_NAMES = (
    "expectations",
    "row_count",
    "schema",
    "single_class",
    "duplicates",
    "leakage",
    "drift",
)
#: Part of every quality configuration: raised when a check comes to mean something else.
RULES = 2
_SAMPLE_ROWS = 50_000  # for leakage and drift: a share is then within half a hundredth
_SAMPLE_CELLS = 10_000_000
_SAMPLE_LEAST = 5_000
_CLASSES_COUNTED = 65_536
_TABLE_ROWS = 50


def quality_digest(spec: PipelineSpec, suite: Mapping[str, Any] | None) -> str:
    """Names the configuration that checks run under: an audit under another one does not count.

    It covers the suite's content (not its file name), the declared columns and all bounds. What
    drift is measured against is no part of it: a new model must not make old audits void.
    """
    return digest_of(
        {
            "rules": RULES,
            "checks": list(CHECK_NAMES),
            "format": spec.source.format,
            "columns": spec.columns.model_dump(mode="json"),
            "quality": spec.quality.model_dump(mode="json", exclude={"expectations"}),
            "suite": suite,
            "suite_rows": MOST_ROWS,
        }
    )


def audit_frame(
    frame: pl.DataFrame,
    spec: PipelineSpec,
    suite: Mapping[str, Any] | None,
    reference: Mapping[str, Any] | None = None,
) -> tuple[CheckOutcome, ...]:
    """The outcomes of all checks on a partition that is one frame; see :class:`Auditor`."""
    auditor = Auditor(spec, suite, reference)
    auditor.add(frame)
    return auditor.outcomes()


class Auditor:
    """All checks on one partition's records, which come in blocks.

    Each block has the declared features and the target, and may have further columns (row ids,
    splits, pixels). ``reference`` is the profile that drift is measured against, if there is one;
    its ``model`` says whose data that was, its ``unavailable`` why it could not be had. Held are
    8 bytes for each row, and samples of a bounded size.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        suite: Mapping[str, Any] | None,
        reference: Mapping[str, Any] | None = None,
    ) -> None:
        self._spec, self._reference = spec, reference
        self._suite = SuiteCheck(suite, name=spec.name)
        self._declared = [*(f.name for f in spec.columns.features), spec.columns.target]
        self._schema: dict[str, pl.DataType] = {}
        self._untargeted = 0
        self._classes = Levels(_CLASSES_COUNTED)
        self._distinct = Distinct()
        self._compared: list[str] = []
        cells = max(1, len(self._declared))
        most = min(_SAMPLE_ROWS, _SAMPLE_CELLS // cells)
        self._sample = RowSample(max(_SAMPLE_LEAST, most))
        self._broken: dict[str, str] = {}  # a check that cannot be made any more, and why

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next block of rows. Raises nothing: what breaks a check fails it."""
        for name, dtype in frame.schema.items():
            self._schema.setdefault(name, dtype)
        self._guarded("expectations", lambda: self._suite.add(frame))
        self._guarded("schema", lambda: self._look(frame))
        self._guarded("single_class", lambda: self._count_classes(frame))
        self._guarded("duplicates", lambda: self._compare(frame))
        self._guarded("sample", lambda: self._sample.add(_judged(frame, self._spec)))

    def outcomes(self) -> tuple[CheckOutcome, ...]:
        """The outcome of each check, named and ordered as in ``CHECK_NAMES``.

        A check that cannot be made fails with the reason; nothing is raised.
        """
        checks: dict[str, Callable[[], CheckOutcome]] = {
            "expectations": self._suite.outcome,
            "row_count": self._row_count,
            "schema": self._schema_check,
            "single_class": self._single_class,
            "duplicates": self._duplicates,
            "leakage": self._leakage,
            "drift": self._drift,
        }
        return tuple(self._made(name, checks[name]) for name in CHECK_NAMES)

    def _guarded(self, name: str, step: Callable[[], None]) -> None:
        if name in self._broken:
            return
        try:
            step()
        except Exception as error:  # whatever broke it, the check has not seen all rows
            self._broken[name] = _said(error)

    def _made(self, name: str, check: Callable[[], CheckOutcome]) -> CheckOutcome:
        sampled = name in ("leakage", "drift")
        trouble = self._broken.get("sample" if sampled else name)
        if trouble is None:
            try:
                return check()
            except Exception as error:  # a check that broke has proven nothing
                trouble = _said(error)
        quality = self._spec.quality
        blocking = {"leakage": quality.leakage.blocking, "drift": quality.drift.blocking}
        return CheckOutcome(
            name=name,
            passed=False,
            reason=f"could not be made: {trouble}",
            blocking=blocking.get(name, True),
        )

    def _row_count(self) -> CheckOutcome:
        rows, least = self._distinct.rows, self._spec.quality.min_rows
        return CheckOutcome(
            name="row_count",
            passed=rows >= least,
            reason=f"{rows} rows, at least {least} needed",
            details={"rows": rows, "min_rows": least},
        )

    def _look(self, frame: pl.DataFrame) -> None:
        """Count the rows whose target cannot be used; a column that changes its type is none."""
        for name, dtype in frame.schema.items():
            if name in self._declared and dtype != self._schema[name]:
                raise TypeError(f"{name} is {self._schema[name]} in one block, {dtype} in another")
        if self._spec.columns.target not in frame.columns:
            return
        target = frame[self._spec.columns.target]
        self._untargeted += target.null_count()
        if self._spec.columns.task == "regression" and target.dtype.is_float():
            self._untargeted += int((~target.is_finite()).sum())

    def _schema_check(self) -> CheckOutcome:
        """Every declared column is there with a type that fits, and every row has its target."""
        columns = self._spec.columns
        wanted: dict[str, str] = {feature.name: feature.type for feature in columns.features}
        wanted[columns.target] = "number" if columns.task == "regression" else "category"
        found = {name: _type_fault(self._schema.get(name), kind) for name, kind in wanted.items()}
        if self._untargeted and not found[columns.target]:
            found[columns.target] = f"{self._untargeted} rows have no usable target"
        faults = {name: fault for name, fault in found.items() if fault}
        # What is wrong comes first; a table of thousands of sound columns helps nobody.
        shown = sorted(wanted, key=lambda name: not found[name])[:_TABLE_ROWS]
        rows = [
            (name, wanted[name], str(self._schema.get(name, "-")), found[name] or "fits")
            for name in shown
        ]
        return CheckOutcome(
            name="schema",
            passed=not faults,
            reason="; ".join(f"{name}: {fault}" for name, fault in faults.items())
            or f"{len(wanted)} declared columns have their types",
            details={
                "table": table(("column", "declared", "found", "result"), rows),
                "columns": {name: str(kind) for name, kind in self._schema.items()},
                "faults": len(faults),
            },
        )

    def _count_classes(self, frame: pl.DataFrame) -> None:
        if self._spec.columns.task != "regression":
            self._classes.add(frame[self._spec.columns.target])

    def _single_class(self) -> CheckOutcome:
        if self._spec.columns.task == "regression":
            return CheckOutcome(
                name="single_class", passed=True, reason="regression: the target has no classes"
            )
        counts, classes = self._classes.counts(), self._classes.distinct
        ranked = sorted(counts, key=lambda label: (-counts[label], label))
        passed = classes >= 2
        return CheckOutcome(
            name="single_class",
            passed=passed,
            reason=f"{classes} classes"
            if passed
            else f"only the class {ranked[0]!r} occurs"
            if ranked
            else "no row has a class",
            details={
                "classes": classes,
                "counts": {label: counts[label] for label in ranked[:1000]},
                "rarest_rows": counts[ranked[-1]] if ranked else 0,
            },
        )

    def _compare(self, frame: pl.DataFrame) -> None:
        """Hash the declared columns, for images the pixels too: binary and list columns."""
        self._compared = [
            name
            for name, dtype in frame.schema.items()
            if name in self._declared or _is_pixels(dtype)
        ]
        self._distinct.add(frame, self._compared)

    def _duplicates(self) -> CheckOutcome:
        """How many rows repeat an earlier one exactly.

        Repetition is common in honest data (few categories), so by default only rows that are
        all the same fail; ``quality.max_duplicates`` says how much repetition is too much.
        """
        rows, most = self._distinct.rows, self._spec.quality.max_duplicates
        pixels = set(self._compared) - {self._spec.columns.target}
        if self._spec.source.format == "images" and not pixels:
            return CheckOutcome(
                name="duplicates", passed=True, reason="not compared: the frame has no pixels"
            )
        distinct = self._distinct.count() if self._compared else 0
        repeated = rows - distinct
        share = repeated / rows if rows else 0.0
        same = rows > 1 and distinct <= 1
        reason = f"{repeated} of {rows} rows repeat another"
        if share > most:
            reason += f" ({100 * share:.3g} %), at most {100 * most:.3g} % may"
        return CheckOutcome(
            name="duplicates",
            passed=not same and share <= most,
            reason="all rows are identical" if same else reason,
            details={"repeated": repeated, "share": share, "max_share": most, "rows": rows},
        )

    def _leakage(self) -> CheckOutcome:
        """No column alone may give the target away; see :mod:`ml_control.core.leakage`."""
        bound, blocking = self._spec.quality.leakage.max_score, self._spec.quality.leakage.blocking
        if self._spec.source.format == "images":
            reason = "images: no single column is a feature"
            return CheckOutcome(name="leakage", passed=True, reason=reason, blocking=blocking)
        frame = self._sample.frame()
        usable = self._spec.columns.target in frame.columns
        why = unjudged(frame, self._spec) if usable else "there is no usable target"
        if why:
            return CheckOutcome(name="leakage", passed=True, reason=why, blocking=blocking)
        found = scores(frame, self._spec)
        beyond = [name for name, score in found.items() if score > bound]
        best = next(iter(found), "")
        reason = f"no column tells the target: {best} comes closest with {found.get(best, 0):.4g}"
        if beyond:
            named = ", ".join(f"{name} ({found[name]:.4g})" for name in beyond)
            reason = (
                f"each alone tells the target: {named}, at most {bound:g} may; put what is not "
                "known when predicting under columns.ignore, or raise quality.leakage.max_score"
            )
        rows = [
            (name, f"{score:.4f}", "GIVES IT AWAY" if score > bound else "fits")
            for name, score in found.items()
        ]
        return CheckOutcome(
            name="leakage",
            passed=not beyond,
            reason=reason,
            details={
                "table": table(("column", "score alone", "result"), rows[:_TABLE_ROWS]),
                "scores": found,
                "best_score": found.get(best, 0.0),
                "max_score": bound,
                "sampled_rows": frame.height,
                "rows": self._sample.seen,
            },
            blocking=blocking,
        )

    def _drift(self) -> CheckOutcome:
        """No column may have drifted from the reference; see :mod:`ml_control.core.drift`."""
        quality, reference = self._spec.quality.drift, self._reference
        if reference is None:
            reason = "nothing to compare with: no model was trained yet"
            return CheckOutcome(name="drift", passed=True, reason=reason, blocking=quality.blocking)
        if trouble := reference.get("unavailable"):
            raise LookupError(f"the profile of the newest model's data: {trouble}")
        frame, bound = self._sample.frame(), quality.max_psi
        found = drift(frame, reference, self._spec)
        if not found:
            reason = f"too few rows to tell ({frame.height}; {LEAST_ROWS} are needed on both sides)"
            return CheckOutcome(name="drift", passed=True, reason=reason, blocking=quality.blocking)
        beyond = [one for one in found if one.beyond(bound)]
        worst = found[0]
        reason = f"{worst.name} has the largest PSI, {worst.psi:.3g}"
        if beyond:
            named = ", ".join(f"{one.name} ({one.psi:.3g})" for one in beyond[:_TABLE_ROWS])
            reason = (
                f"{len(beyond)} of {len(found)} columns drifted by a PSI above {bound:g}: {named}"
            )
        elif worst.psi > bound:
            reason += f", which {frame.height} rows give by chance (up to {worst.chance:.3g})"
        rows = [
            (
                one.name,
                f"{one.psi:.4f}",
                f"{one.chance:.4f}",
                "DRIFTED" if one.beyond(bound) else "stable",
            )
            for one in found[:_TABLE_ROWS]
        ]
        return CheckOutcome(
            name="drift",
            passed=not beyond,
            reason=reason,
            details={
                "table": table(("column", "PSI", "by chance up to", "result"), rows),
                "psi": {one.name: one.psi for one in found},
                "worst_psi": worst.psi,
                "drifted": len(beyond),
                "max_psi": bound,
                "model": str(reference.get("model", "")),
                "sampled_rows": frame.height,
                "rows": self._sample.seen,
            },
            blocking=quality.blocking,
        )


def _judged(frame: pl.DataFrame, spec: PipelineSpec) -> pl.DataFrame:
    """The columns that leakage and drift look at; what the schema check refuses is not there."""
    wanted: dict[str, str] = {feature.name: feature.type for feature in spec.columns.features}
    if spec.source.format == "images":
        wanted = dict.fromkeys(("brightness", "contrast"), "number")
    wanted[spec.columns.target] = "number" if spec.columns.task == "regression" else "category"
    return frame.select(
        name for name, kind in wanted.items() if not _type_fault(frame.schema.get(name), kind)
    )


def _said(error: Exception) -> str:
    if isinstance(error, MlControlError):
        return f"{error.object}: {error.reason}"
    return f"{type(error).__name__}: {error}"


def _type_fault(dtype: pl.DataType | None, kind: str) -> str:
    import polars as pl

    if dtype is None:
        return "there is no such column"
    if kind == "number":
        fits = dtype.is_numeric()
    else:
        texts = (pl.String, pl.Categorical, pl.Enum, pl.Boolean)
        fits = dtype.is_integer() or any(dtype == one for one in texts)
    return "" if fits else f"type {dtype} where a {kind} is declared"


def _is_pixels(dtype: pl.DataType) -> bool:
    import polars as pl

    return dtype == pl.Binary or dtype.is_nested()
