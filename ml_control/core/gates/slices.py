"""Gates on groups of test rows: a bound that holds in each of them, not only on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml_control.core.evidence import Evidence
from ml_control.core.gates.base import Gate, bounds, folded, outside, refused, some
from ml_control.core.metrics import checked, evaluate
from ml_control.core.records import GateResult
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import LOWER_IS_BETTER, Gates, SliceGate

#: A verdict keeps so many groups, the worst judged ones first.
GROUPS_KEPT = 50
MISSING = "(missing)"


def slice_names(slices: Sequence[SliceGate]) -> tuple[str, ...]:
    """``slice:<column>:<metric>`` for each, numbered where two would look the same as a check."""
    names: list[str] = []
    taken: set[str] = set()
    for one in slices:
        name = base = f"slice:{one.column}:{one.metric}"
        number = 2
        while folded(name) in taken:
            name, number = f"{base}:{number}", number + 1
        taken.add(folded(name))
        names.append(name)
    return tuple(names)


def in_slices(name: str, rule: SliceGate) -> Gate:
    """The gate of one slice: every group with enough test rows fulfils the bound.

    Smaller groups are shown and not judged. A missing value is a group. A group on which the
    metric has no value (AUC of a single class) is not shown to be good, so it fails; so does a
    slice without any group that is large enough.
    """

    def gate(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
        required = f"{rule.metric} {bounds(rule.min, rule.max)} in each group of "
        required += f"{rule.min_rows} rows or more"
        try:
            groups = _measured(evidence, rule)
        except (NotProven, InvalidSpec) as error:
            return refused(name, f"{error.object}: {error.reason}", required)
        judged = [group for group in groups if group["judged"]]
        bad = [group for group in judged if not group["passed"]]
        values = [group["value"] for group in judged if group["value"] is not None]
        worst = max if rule.metric in LOWER_IS_BETTER else min
        if not judged:
            reason = f"no group has {rule.min_rows} test rows"
        elif bad:
            told = [f"{group['level']} ({group['rows']} rows): {group['reason']}" for group in bad]
            reason = f"{len(bad)} of {len(judged)} groups fail: {some(told)}"
        else:
            reason = f"all {len(judged)} groups are within the bounds"
        return GateResult(
            name=name,
            passed=bool(judged) and not bad,
            reason=reason,
            observed=worst(values) if values else None,
            required=required,
            evidence={
                "column": rule.column,
                "metric": rule.metric,
                "judged": len(judged),
                "failed": len(bad),
                "not_judged": len(groups) - len(judged),
                "groups": groups[:GROUPS_KEPT],
                "left_out": max(0, len(groups) - GROUPS_KEPT),
            },
        )

    return gate


def _measured(evidence: Evidence, rule: SliceGate) -> list[dict[str, Any]]:
    """Each group with its rows and value: failed ones first, then the worst, then the small."""
    import numpy as np

    y, p = checked(evidence.task, evidence.y_test, evidence.predictions_test)
    groups = evidence.groups.get(rule.column)
    if groups is None or len(groups.codes) != len(y):
        raise NotProven(f"column {rule.column}", "the groups of the test rows are not known")
    order = np.argsort(groups.codes, kind="stable")
    ends = np.searchsorted(groups.codes[order], np.arange(len(groups.levels) + 1))
    found: list[dict[str, Any]] = []
    for code, level in enumerate(groups.levels):
        rows = order[ends[code] : ends[code + 1]]
        if not len(rows):
            continue
        try:
            value = evaluate(evidence.task, y[rows], p[rows], rule.metric)
            why = outside(value, rule.min, rule.max)
        except NotProven as error:
            value, why = None, error.reason
        judged = len(rows) >= rule.min_rows
        found.append(
            {
                "level": MISSING if level is None else level,
                "rows": len(rows),
                "value": value,
                "judged": judged,
                "passed": not why if judged else None,
                "reason": why if judged else f"fewer than {rule.min_rows} rows: not judged",
            }
        )
    sign = -1.0 if rule.metric in LOWER_IS_BETTER else 1.0

    def first(group: dict[str, Any]) -> tuple[Any, ...]:
        value = group["value"]
        size = float("-inf") if value is None else sign * value
        return (not group["judged"], bool(group["passed"]), size, group["level"])

    return sorted(found, key=first)
