"""Gates on the data and on how well the model predicts the test split, also beside the champion."""

from __future__ import annotations

from ml_control.core.bootstrap import paired_difference
from ml_control.core.digests import short
from ml_control.core.evidence import Evidence
from ml_control.core.gates.base import Gate, bounds, outside, refused, some
from ml_control.core.metrics import checked, evaluate
from ml_control.core.records import GateResult
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import DEFAULT_METRIC, Gates, MetricGate

RESAMPLES = 2000
#: What adding up in another order may change; keeps a margin of zero meaningful.
_ROUNDING = 1e-12


def data_checks(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """Every data version used was checked, as these bytes, under this configuration; and passed."""
    found = evidence.data_checks
    faults = [f"{check.partition} {check.fault}" for check in found if check.fault]
    reason = "" if found else "the model names no data"
    if faults:
        reason = some(faults)
    return GateResult(
        name="data_checks",
        passed=not reason,
        reason=reason or f"{len(found)} partitions passed their checks",
        observed=float(len(found) - len(faults)),
        required=f"all {len(found)} partitions" if found else "at least one partition",
        evidence={"faults": faults},
    )


def predictions(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """Every test row has a finite prediction of the task's form, one column for each class."""
    import numpy as np

    required = "a finite prediction for every test row"
    if evidence.predictions_test is None:
        return refused("predictions", "there are none for the test split", required)
    try:
        y, _ = checked(evidence.task, evidence.y_test, evidence.predictions_test)
    except (NotProven, InvalidSpec) as error:
        return refused("predictions", f"{error.object}: {error.reason}", required)
    width = np.shape(evidence.predictions_test)[1:]
    if evidence.task == "multiclass" and width != (len(evidence.labels),):
        return refused(
            "predictions", f"{width[0]} columns for {len(evidence.labels)} labels", required
        )
    return GateResult(
        name="predictions",
        passed=True,
        reason=f"{len(y)} test rows have a finite prediction",
        observed=float(len(y)),
        required=required,
    )


def metric(name: str, bound: MetricGate) -> Gate:
    """The gate ``metric:<name>``: the metric on the test split lies within its bounds."""

    def gate(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
        required = bounds(bound.min, bound.max)
        try:
            value = evaluate(evidence.task, evidence.y_test, evidence.predictions_test, name)
        except (NotProven, InvalidSpec) as error:
            return refused(f"metric:{name}", f"{error.object}: {error.reason}", required)
        side = outside(value, bound.min, bound.max)
        return GateResult(
            name=f"metric:{name}",
            passed=not side,
            reason=side or "within its bounds",
            observed=value,
            required=required,
            evidence={"rows": len(evidence.y_test)},
        )

    return gate


def champion(evidence: Evidence, gates: Gates) -> GateResult:
    """Not worse than the serving model on the same rows: the one-sided lower bound of the
    paired difference is at least minus the margin.
    """
    rule = gates.champion
    name = rule.metric or DEFAULT_METRIC.get(evidence.task, "")
    required = f"lower bound of {name} difference >= {-rule.margin:g}"
    if evidence.champion is None:
        if evidence.champion_predictions_test is not None:
            return refused("champion", "predictions of a champion that is not named", required)
        return GateResult(name="champion", passed=True, reason="no champion yet", required=required)
    if evidence.predictions_test is None or evidence.champion_predictions_test is None:
        whose = "candidate" if evidence.predictions_test is None else "champion"
        why = f": {evidence.champion_problem}" if evidence.champion_problem else ""
        return refused(
            "champion", f"no predictions of the {whose} on the test split{why}", required
        )
    try:
        found = paired_difference(
            evidence.task,
            name,
            evidence.y_test,
            evidence.predictions_test,
            evidence.champion_predictions_test,
            confidence=rule.confidence,
            resamples=RESAMPLES,
        )
    except (NotProven, InvalidSpec) as error:
        return refused("champion", f"{error.object}: {error.reason}", required)
    passed = found.lower >= -rule.margin - _ROUNDING
    return GateResult(
        name="champion",
        passed=passed,
        reason=f"{'not worse' if passed else 'not shown to be no worse'} than "
        f"{short(evidence.champion)}",
        observed=found.lower,
        required=required,
        evidence={
            "champion": evidence.champion,
            "metric": name,
            "difference": found.mean,
            "upper": found.upper,
            "confidence": rule.confidence,
            "resamples": found.resamples,
            "rows": found.n,
        },
    )
