"""The report's metrics: of the candidate, and beside the champion with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.bootstrap import Difference, paired_difference
from ml_control.core.metrics import evaluate_all
from ml_control.core.records import Verdict
from ml_control.errors import MlControlError
from ml_control.services.models.report.html import Number, number, table
from ml_control.spec import LOWER_IS_BETTER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

_RESAMPLES = 500
_ROWS_RESAMPLED = 200_000  # above it a picture is not worth the minutes


def task_of(predictions: Array | None, labels: Sequence[str]) -> str:
    """The task that labels and the form of predictions show."""
    if not labels:
        return "regression"
    dimensions = getattr(predictions, "ndim", 2 if len(labels) > 2 else 1)
    return "multiclass" if dimensions == 2 else "binary"


def confidence_of(verdict: Verdict) -> float:
    """The one-sided confidence that the champion gate asked for."""
    found = (gate.evidence.get("confidence") for gate in verdict.gates if gate.name == "champion")
    return float(next((value for value in found if value), 0.95))


def compared(
    verdict: Verdict,
    y: Array,
    predictions: Array | None,
    champion: Array | None,
    labels: Sequence[str],
) -> dict[str, Difference]:
    """By metric, how much better the candidate is on the same rows; empty without a champion."""
    if champion is None or predictions is None or not verdict.metrics:
        return {}
    found: dict[str, Difference] = {}
    if len(y) > _ROWS_RESAMPLED:
        return found
    for name in sorted(verdict.metrics):
        try:
            found[name] = paired_difference(
                task_of(predictions, labels),
                name,
                y,
                predictions,
                champion,
                confidence=confidence_of(verdict),
                resamples=_RESAMPLES,
            )
        except MlControlError:  # undefined on these rows: its line has no interval
            continue
    return found


def metrics_table(
    verdict: Verdict,
    y: Array,
    champion: Array | None,
    labels: Sequence[str],
    found: dict[str, Difference],
) -> str:
    """Each metric of the candidate, the champion's beside it, and the interval between them."""
    if not verdict.metrics:
        return '<p class="fail">None could be computed; the gates say why.</p>'
    other: dict[str, float] = {}
    if champion is not None:
        try:
            other = evaluate_all(task_of(champion, labels), y, champion)
        except MlControlError:
            other = {}
    rows = []
    for name, value in sorted(verdict.metrics.items()):
        better = "lower" if name in LOWER_IS_BETTER else "higher"
        row = [name, number(value)]
        if champion is not None:
            beside = name in other
            row += [number(other.get(name)), number(value - other[name]) if beside else Number("")]
            one = found.get(name)
            row.append(Number(f"{one.lower:+.4g} to {one.upper:+.4g}" if one else ""))
        rows.append([*row, better])
    heads = ["metric", Number("candidate")]
    if champion is not None:
        heads += [Number(text) for text in ("champion", "difference", "better by")]
    note = f"{len(y):,} test rows."
    if found:
        note += (
            f" Better by: bounds of the paired bootstrap, each at "
            f"{confidence_of(verdict):.0%} confidence; above zero is better for the candidate."
        )
    return table([*heads, "better is"], rows) + f'<p class="note">{note}</p>'
