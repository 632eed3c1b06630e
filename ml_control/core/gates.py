"""The gates: plain functions from evidence to result, and the only maker of verdicts.

What is missing, not finite or of the wrong shape is never healthy: such evidence fails its gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_control.core.bootstrap import paired_difference
from ml_control.core.digests import digest_of, short
from ml_control.core.metrics import checked, evaluate, evaluate_all
from ml_control.core.records import Audit, GateResult, Verdict
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import DEFAULT_METRIC, Gates, MetricGate, PipelineSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Absolute and relative, on float32: about eight steps of the last place.
GOLDEN_TOLERANCE = 1e-6
#: Relative above 1 and absolute below; XGBoost may have logged no more than five decimals.
WITNESS_TOLERANCE = 1e-5
RESAMPLES = 2000
#: Part of every gate configuration: raised when a gate comes to mean something else, so that
#: verdicts from before do not stand for it.
RULES = 1
#: What adding up in another order may change; keeps a margin of zero meaningful.
_ROUNDING = 1e-12
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class DataCheck:
    """What is recorded about one data version that the model was trained on.

    ``quality_digest`` is the configuration that its checks must have run under now.
    """

    partition: str
    data_digest: str
    audit: Audit | None
    quality_digest: str

    @property
    def fault(self) -> str:
        """Why this data version does not count as checked; empty when it does."""
        if self.audit is None:
            return "was never checked"
        if self.audit.data_digest != self.data_digest:
            return f"was checked as {short(self.audit.data_digest)}, which are other bytes"
        if self.audit.quality_digest != self.quality_digest:
            return "was checked under another quality configuration"
        failed = [check.name for check in self.audit.checks if check.refuses]
        if failed or not self.audit.passed:
            return f"failed {', '.join(failed) or 'its checks'}"
        if not self.audit.checks:
            return "has an audit without a single check"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for the verdict; the checks' details stay with the audit."""
        checks = self.audit.checks if self.audit is not None else ()
        return {
            "partition": self.partition,
            "data_digest": self.data_digest,
            "quality_digest": self.quality_digest,
            "passed": not self.fault,
            "reason": self.fault,
            "checks": [{"name": c.name, "passed": c.passed, "reason": c.reason} for c in checks],
        }


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything the gates look at. None means: not found out, which fails.

    ``golden_*`` are predictions for the golden records, ``(rows,)`` or ``(rows, outputs)``:
    expected from the training process, observed from the packaged archive. Test arrays are as in
    :mod:`ml_control.core.metrics`. ``labels`` are the class names by index, empty for regression.
    """

    pipeline: str
    model_version: str
    champion: str | None
    test_set: str
    data_checks: Sequence[DataCheck]
    archive_findings: Sequence[Mapping[str, Any]] | None  # what is wrong with the archive
    golden_expected: NDArray[np.floating[Any]] | None
    golden_observed: NDArray[np.floating[Any]] | None
    golden_encoded_equal: bool | None  # FeatureSpec gives exactly the rows that training saw
    watched_name: str
    watched_logged: float | None
    watched_reproduced: float | None
    y_test: NDArray[np.floating[Any]]
    predictions_test: NDArray[np.floating[Any]] | None
    champion_predictions_test: NDArray[np.floating[Any]] | None
    task: str
    labels: tuple[str, ...] = ()
    champion_problem: str = ""  # why the champion could not be asked for its predictions


Gate = Callable[[Evidence, Gates], GateResult]


def data_checks(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """Every data version used was checked, as these bytes, under this configuration; and passed."""
    found = evidence.data_checks
    faults = [f"{check.partition} {check.fault}" for check in found if check.fault]
    reason = "" if found else "the model names no data"
    if faults:
        reason = _some(faults)
    return GateResult(
        name="data_checks",
        passed=not reason,
        reason=reason or f"{len(found)} partitions passed their checks",
        observed=float(len(found) - len(faults)),
        required=f"all {len(found)} partitions" if found else "at least one partition",
        evidence={"faults": faults},
    )


def archive(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The archive is one that the container will load, and nothing else."""
    found = evidence.archive_findings
    if found is None:
        return GateResult(
            name="archive", passed=False, reason="was not inspected", required="0 findings"
        )
    told = [f"{one.get('object', 'archive')}: {one.get('reason', dict(one))}" for one in found]
    return GateResult(
        name="archive",
        passed=not found,
        reason=_some(told) if found else "nothing wrong with the archive",
        observed=float(len(found)),
        required="0 findings",
        evidence={"findings": [{str(k): _plain(v) for k, v in one.items()} for one in found]},
    )


def golden(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The packaged model predicts for the golden records what the training process predicted."""
    import numpy as np

    required = f"equal within {GOLDEN_TOLERANCE:g}, absolute and relative"
    expected, observed = evidence.golden_expected, evidence.golden_observed
    if expected is None or observed is None:
        missing = "expected" if expected is None else "observed"
        return _no("golden", f"no {missing} predictions of the golden records", required)
    try:
        wanted = np.asarray(expected, dtype=np.float32)
        got = np.asarray(observed, dtype=np.float32)
    except (TypeError, ValueError) as error:
        return _no("golden", f"not numeric arrays: {error}", required)
    if wanted.shape != got.shape:
        return _no("golden", f"shape {got.shape} came back for {wanted.shape}", required)
    if wanted.size == 0:
        return _no("golden", "there are no golden records", required)
    bad = int(np.count_nonzero(~(np.isfinite(wanted) & np.isfinite(got))))
    if bad:
        return _no("golden", f"{bad} of {wanted.size} predictions are not finite", required)
    gap = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    off = gap > GOLDEN_TOLERANCE * (1.0 + np.abs(wanted.astype(np.float64)))
    rows = int(np.count_nonzero(off.reshape(len(off), -1).any(axis=1)))
    return GateResult(
        name="golden",
        passed=rows == 0,
        reason=f"{rows} of {len(wanted)} golden records are predicted otherwise"
        if rows
        else f"{len(wanted)} golden records are predicted as in training",
        observed=float(gap.max()),
        required=required,
        evidence={"rows": len(wanted), "mismatched": rows},
    )


def features(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The recorded FeatureSpec encodes the golden records to exactly the rows training saw."""
    equal = evidence.golden_encoded_equal is True  # None and array-likes are not a yes
    return GateResult(
        name="features",
        passed=equal,
        reason="the golden records are encoded as in training"
        if equal
        else "the golden records were not shown to be encoded as in training",
        required="exactly equal rows",
    )


def witness(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """The packaged model reproduces the metric that the trainer logged at the chosen round."""
    import numpy as np

    name = evidence.watched_name or "the watched metric"
    logged, reproduced = evidence.watched_logged, evidence.watched_reproduced
    if logged is None or not np.isfinite(logged):
        return _no("witness", f"the trainer logged no finite {name}", "a logged value")
    required = f"{logged:.6g} within {WITNESS_TOLERANCE:g}"
    if reproduced is None or not np.isfinite(reproduced):
        return _no("witness", f"no finite {name} came from the archive", required)
    equal = abs(reproduced - logged) <= WITNESS_TOLERANCE * max(1.0, abs(logged))
    return GateResult(
        name="witness",
        passed=bool(equal),
        reason=f"the archive {'reproduces' if equal else 'does not reproduce'} {name}",
        observed=float(reproduced),
        required=required,
        evidence={"metric": name, "logged": float(logged)},
    )


def predictions(evidence: Evidence, gates: Gates) -> GateResult:  # noqa: ARG001 - a gate's form
    """Every test row has a finite prediction of the task's form, one column for each class."""
    import numpy as np

    required = "a finite prediction for every test row"
    if evidence.predictions_test is None:
        return _no("predictions", "there are none for the test split", required)
    try:
        y, _ = checked(evidence.task, evidence.y_test, evidence.predictions_test)
    except (NotProven, InvalidSpec) as error:
        return _no("predictions", f"{error.object}: {error.reason}", required)
    width = np.shape(evidence.predictions_test)[1:]
    if evidence.task == "multiclass" and width != (len(evidence.labels),):
        return _no("predictions", f"{width[0]} columns for {len(evidence.labels)} labels", required)
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
        required = " and ".join(
            f"{sign} {limit:g}"
            for sign, limit in ((">=", bound.min), ("<=", bound.max))
            if limit is not None
        )
        try:
            value = evaluate(evidence.task, evidence.y_test, evidence.predictions_test, name)
        except (NotProven, InvalidSpec) as error:
            return _no(f"metric:{name}", f"{error.object}: {error.reason}", required)
        # Written as "not within", so that a bound that is no number lets nothing pass.
        low = bound.min is not None and not value >= bound.min
        high = bound.max is not None and not value <= bound.max
        side = "below the smallest" if low else "above the largest"
        return GateResult(
            name=f"metric:{name}",
            passed=not low and not high,
            reason=f"{side} passing value" if low or high else "within its bounds",
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
            return _no("champion", "predictions of a champion that is not named", required)
        return GateResult(name="champion", passed=True, reason="no champion yet", required=required)
    if evidence.predictions_test is None or evidence.champion_predictions_test is None:
        whose = "candidate" if evidence.predictions_test is None else "champion"
        why = f": {evidence.champion_problem}" if evidence.champion_problem else ""
        return _no("champion", f"no predictions of the {whose} on the test split{why}", required)
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
        return _no("champion", f"{error.object}: {error.reason}", required)
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


_BEFORE = (data_checks, archive, features, golden, witness, predictions)


def all_gates(gates: Gates) -> tuple[Gate, ...]:
    """The gates that these settings ask for, in the order in which they are shown."""
    bounds = (metric(name, gates.metrics[name]) for name in sorted(gates.metrics))
    return (*_BEFORE, *bounds, champion)


def gate_names(spec: PipelineSpec) -> tuple[str, ...]:
    """The names of :func:`all_gates` in the same order, without judging anything."""
    bounds = (f"metric:{name}" for name in sorted(spec.gates.metrics))
    return (*(gate.__name__ for gate in _BEFORE), *bounds, champion.__name__)


def gate_config(spec: PipelineSpec, suite_digest: str | None) -> str:
    """Names the question that a verdict answers: everything that decides what passes.

    ``suite_digest`` is the digest of the quality configuration or its suite, None without one.
    """
    return digest_of(
        {
            "rules": RULES,
            "golden": GOLDEN_TOLERANCE,
            "witness": WITNESS_TOLERANCE,
            "resamples": RESAMPLES,
            "gates": spec.gates.model_dump(mode="json"),
            "champion_metric": spec.champion_metric,
            "task": spec.columns.task,
            "target": spec.columns.target,
            "positive": spec.columns.positive,
            "min_rows": spec.quality.min_rows,
            "suite": suite_digest,
        }
    )


def judge(
    evidence: Evidence, spec: PipelineSpec, *, gate_config: str, at: float, run: str
) -> Verdict:
    """The verdict on one model version: passed only if every gate passed.

    ``at`` is UTC seconds. Raises ``InvalidSpec`` when the evidence is about another task than
    the pipeline's, whose gates would then answer another question.
    """
    if evidence.task != spec.columns.task:
        raise InvalidSpec(
            evidence.pipeline,
            f"the evidence is for task {evidence.task}, the pipeline is {spec.columns.task}",
            "gather the evidence again with the present pipeline file",
        )
    results = tuple(gate(evidence, spec.gates) for gate in all_gates(spec.gates))
    try:
        metrics = evaluate_all(evidence.task, evidence.y_test, evidence.predictions_test)
    except NotProven:
        metrics = {}  # the gate on predictions has already said why
    return Verdict(
        pipeline=evidence.pipeline,
        model_version=evidence.model_version,
        gate_config=gate_config,
        champion=evidence.champion,
        test_set=evidence.test_set,
        passed=all(result.passed for result in results),
        gates=results,
        data_checks=tuple(check.to_json() for check in evidence.data_checks),
        metrics=metrics,
        at=at,
        run=run,
    )


def _no(name: str, reason: str, required: str) -> GateResult:
    return GateResult(name=name, passed=False, reason=reason, required=required)


def _some(faults: Sequence[str]) -> str:
    """The first few of many, and how many more there are."""
    more = len(faults) - _NAMED_AT_MOST
    return "; ".join(faults[:_NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")


def _plain(value: Any) -> Any:
    """A value that survives JSON."""
    return value if isinstance(value, str | int | bool | None) else str(value)
