"""Prove or refuse any model archive for a container, in seconds and without the cloud.

First what the bytes say of themselves, then a replay in the container's exact XGBoost: against
golden rows where there are some, and against the XGBoost that saved the model where we have it.
A model that a rule already refuses is replayed all the same, to measure how wrong it would be.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ml_control.core.artifact import Booster, Finding, Inspection, inspect_archive
from ml_control.core.containers import CONTAINERS, Container, container
from ml_control.core.tolerance import allowed, scale_of
from ml_control.errors import InvalidSpec, MlControlError, NotProven, PlatformFailed
from ml_control.services.models.proving import Replay, replay

_MAX_PROBE_COLUMNS = 100_000
_GOLDEN_NEXT = "use the golden.json that was written when the model was trained"
_CELL = re.compile(r"([+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?|nan)?")
_ANSWERS = "answers with status 200, but not as it was trained to"


@dataclass
class VerifyReport:
    """Whether an archive may be served in a container, and everything that speaks against it.

    ``golden`` compares predictions: ``against`` (golden.json, or the XGBoost that saved the
    model), ``rows``, ``max_abs_difference`` (None when shapes differ or an answer is not a
    number), ``mismatched_rows`` and ``first_mismatch``. None when nothing could be compared.
    """

    archive: str
    container: str
    passed: bool
    findings: list[Finding] = field(default_factory=list)
    booster: Booster | None = None
    golden: dict[str, Any] | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Golden:
    """Feature rows as CSV lines, and the trainer's own prediction for each."""

    rows: tuple[str, ...]
    predictions: tuple[tuple[float, ...], ...]


def verify(
    archive: bytes,
    container_tag: str,
    golden: bytes | None = None,
    name: str = "model.tar.gz",
    features: bytes | None = None,
) -> VerifyReport:
    """Everything that speaks against serving this archive in this container.

    ``features`` is a features.json that must fit the model, and the golden records if there are
    any. A refusal is a report that did not pass, not an error. Raises ``InvalidSpec`` for an
    unknown container or an unusable golden or features file, ``PlatformFailed`` when nothing
    speaks against the archive but the container's environment cannot be built to prove it.
    """
    started = time.perf_counter()
    target = container(container_tag)
    expected = read_golden(golden) if golden is not None else None
    inspection = inspect_archive(archive, target, name=name)
    findings = list(inspection.findings)
    compared = None
    booster = inspection.booster
    if features is not None:
        findings += _fits(features, golden, booster)
    if booster is not None and booster.categorical and golden is None:
        findings.append(
            Finding(
                "categorical",
                f"{name}:xgboost-model",
                "was trained on categories of a data frame, which the container's CSV does not "
                "have: only the very codes of training give its answers",
                "prove it with --golden, whose rows hold those codes",
            )
        )
    if inspection.model is not None and booster and booster.format not in ("pickle", "unknown"):
        try:
            replayed, compared = _replayed(inspection, target, expected, f"{name}:xgboost-model")
            findings = _measured(findings, compared) + replayed
        except PlatformFailed:  # without the environment a refusal stands, but nothing is proven
            if not findings:
                raise
    return VerifyReport(
        name,
        target.tag,
        not findings,
        findings,
        booster,
        compared,
        round(time.perf_counter() - started, 3),
    )


def _fits(features: bytes, golden: bytes | None, booster: Booster | None) -> list[Finding]:
    """Whether a features.json is the one that this model and its golden records were made with."""
    from ml_control.core.features import FeatureSpec, csv_row

    step = "use the features.json that was written when the model was trained"
    try:
        spec = FeatureSpec.model_validate_json(features)
    except ValueError as error:
        words = str(error).splitlines()[0]
        raise InvalidSpec("features.json", f"cannot be read: {words}", step) from error
    width = booster.num_feature if booster else None
    if width is not None and width != spec.width:
        reason = f"gives {spec.width} columns, the model takes {width}"
        return [Finding("features_columns", "features.json", reason, step)]
    content = json.loads(golden) if golden is not None else {}
    try:
        rows = [csv_row(spec.encode_record(record)) for record in content.get("records", [])]
    except (MlControlError, AttributeError, TypeError) as error:
        return [Finding("features_differ", "features.json", f"golden records: {error}", step)]
    if rows and rows != content["rows"]:
        reason = "encodes the golden records otherwise than training did: it is another model's"
        return [Finding("features_differ", "features.json", reason, step)]
    return []


def raise_if_refused(report: VerifyReport) -> None:
    """Raise ``NotProven`` from the first finding, with all of them in ``detail``, if any."""
    if report.passed:
        return
    first = report.findings[0]
    raise NotProven(
        first.object,
        first.reason,
        first.next,
        rule=first.rule,
        container=report.container,
        findings=[asdict(finding) for finding in report.findings],
    )


def read_golden(data: bytes) -> Golden:
    """The rows and predictions of a golden.json. Raises ``InvalidSpec`` saying what is wrong."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad_golden(f"is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != 1:
        raise _bad_golden('has no "format": 1')
    rows, predictions = content.get("rows"), content.get("predictions")
    if not isinstance(rows, list) or not isinstance(predictions, list) or not rows:
        raise _bad_golden('needs "rows" and "predictions", both lists, with at least one row')
    if len(rows) != len(predictions):
        raise _bad_golden(f"has {len(rows)} rows and {len(predictions)} predictions")
    widths = set()
    for index, (row, prediction) in enumerate(zip(rows, predictions, strict=True)):
        if not isinstance(row, str) or not all(map(_is_cell, row.split(","))):
            raise _bad_golden(f"row {index} is not a line of numbers and empty cells: {row!r:.120}")
        if not (isinstance(prediction, list) and prediction and all(map(_is_number, prediction))):
            raise _bad_golden(f"prediction {index} is not a list of numbers: {prediction!r:.120}")
        widths.add((row.count(","), len(prediction)))
    if len(widths) > 1:
        raise _bad_golden("has rows or predictions of different lengths")
    return Golden(tuple(rows), tuple(tuple(map(float, line)) for line in predictions))


def _is_cell(text: str) -> bool:
    return _CELL.fullmatch(text) is not None


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 1 << 128  # beyond the range of float32
    return isinstance(value, float) and math.isfinite(value)


def _bad_golden(reason: str) -> InvalidSpec:
    return InvalidSpec("golden.json", reason, _GOLDEN_NEXT)


def _replayed(
    inspection: Inspection, target: Container, golden: Golden | None, where: str
) -> tuple[list[Finding], dict[str, Any] | None]:
    """Load and predict in the target's XGBoost; what is wrong, and the comparison made."""
    booster, model = inspection.booster, inspection.model or b""
    columns = booster.num_feature if booster else None
    if golden is not None:
        wide = golden.rows[0].count(",") + 1
        if columns is not None and wide != columns:
            reason = f"takes {columns} columns, but the golden rows have {wide}"
            return [Finding("golden_columns", where, reason, _GOLDEN_NEXT)], None
        rows: Sequence[str] = golden.rows
    else:
        rows = _probes(columns)
    try:
        got = _predict(model, target, rows)
    except NotProven as error:
        step = f"save the model with XGBoost {target.xgboost} and pack it again"
        return [Finding("does_not_answer", where, error.reason, step)], None
    if golden is not None:
        compared = _compare(golden.predictions, got, "golden.json")
        next_step = f"serve it in the container of its own XGBoost, or train it for {target.tag}"
        if compared["mismatched_rows"]:
            reason = f"{_ANSWERS}: {difference_of(compared)}"
            return [Finding("golden_differs", where, reason, next_step)], compared
        return [], compared
    if not all(math.isfinite(value) for row in got for value in row):
        reason = "answers a row of empty cells or of zeros with something that is no number"
        return [Finding("does_not_answer", where, reason, "train the model again")], None
    return [], _against_saver(inspection, target, rows, got)


def _against_saver(
    inspection: Inspection, target: Container, rows: Sequence[str], got: list[tuple[float, ...]]
) -> dict[str, Any] | None:
    """Without golden rows: the answers of the XGBoost that saved the model, where we have it."""
    booster = inspection.booster
    if not rows or booster is None or booster.version in (None, target.version):
        return None
    saver = next((c for c in CONTAINERS.values() if c.version == booster.version), None)
    if saver is None:
        return None
    try:
        theirs = _predict(inspection.model or b"", saver, rows)
    except MlControlError:  # the measurement is extra; the refusal stands without it
        return None
    return _compare(theirs, got, f"XGBoost {saver.xgboost}, which saved it")


def _probes(columns: int | None) -> list[str]:
    """One row of empty cells and one of zeros; none when the model does not say its width."""
    if not columns or columns > _MAX_PROBE_COLUMNS:
        return []
    return [",".join([cell] * columns) for cell in ("", "0")]


def _predict(model: bytes, target: Container, rows: Sequence[str]) -> list[tuple[float, ...]]:
    with tempfile.TemporaryDirectory(prefix="ml-control-verify-") as folder:
        path = Path(folder) / "rows.csv"
        path.write_text("".join(f"{row}\n" for row in rows))
        result: Replay = replay(model, target, {"rows": path} if rows else {})
    answers = result.predictions.get("rows")
    if answers is None:
        return []
    return [tuple(map(float, row)) for row in answers.reshape(len(rows), -1)]


def _compare(
    expected: Sequence[tuple[float, ...]], got: Sequence[tuple[float, ...]], against: str
) -> dict[str, Any]:
    """How far two lists of predictions are apart, row by row."""
    worst: float | None = 0.0
    first: dict[str, Any] | None = None
    mismatched = 0
    scale = scale_of(expected)
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        away = _apart(want, have)
        worst = None if away is None or worst is None else max(worst, away)
        if away is None or any(
            abs(w - h) > allowed(w, scale) for w, h in zip(want, have, strict=True)
        ):
            mismatched += 1
            if first is None:
                shown = [value if math.isfinite(value) else str(value) for value in have]
                first = {"row": index, "expected": list(want), "actual": shown}
    return {
        "against": against,
        "rows": len(expected),
        "max_abs_difference": worst,
        "mismatched_rows": mismatched,
        "first_mismatch": first,
    }


def _apart(want: tuple[float, ...], have: tuple[float, ...]) -> float | None:
    if len(want) != len(have) or not all(map(math.isfinite, have)):
        return None
    return max(abs(w - h) for w, h in zip(want, have, strict=True))


def difference_of(compared: dict[str, Any]) -> str:
    """A comparison as one clause: how many rows differ, by how much, and the first of them."""
    first, worst = compared["first_mismatch"], compared["max_abs_difference"]
    by = f" by up to {worst:.6g}" if worst is not None else " in shape or are not numbers"
    return (
        f"{compared['mismatched_rows']} of {compared['rows']} rows differ from "
        f"{compared['against']}{by}, the first is row {first['row']}: "
        f"expected {_brief(first['expected'])}, got {_brief(first['actual'])}"
    )


def _brief(values: Sequence[float | str]) -> str:
    shown = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values[:4])
    return f"{shown}, ..." if len(values) > 4 else shown


def _measured(findings: list[Finding], compared: dict[str, Any] | None) -> list[Finding]:
    """The findings, where a saver that does not suit the loader says by how much it would err."""
    if compared is None:
        return findings
    wrong = compared["mismatched_rows"] > 0
    text = difference_of(compared) if wrong else f"none of {compared['rows']} rows differs"
    return [
        replace(finding, reason=f"{finding.reason}; measured: {text}")
        if finding.rule == "version"
        else finding
        for finding in findings
    ]
