"""The gates: plain functions from evidence to result, and the only maker of verdicts.

What is missing, not finite or of the wrong shape is never healthy: such evidence fails its gate.
"""

from __future__ import annotations

from ml_control.core.digests import digest_of
from ml_control.core.evidence import DataCheck, Evidence, Groups
from ml_control.core.gates.base import Gate, folded
from ml_control.core.gates.packaged import (
    WITNESS_TOLERANCE,
    archive,
    features,
    golden,
    latency_p99,
    max_size_mb,
    witness,
)
from ml_control.core.gates.quality import RESAMPLES, champion, data_checks, metric, predictions
from ml_control.core.gates.slices import in_slices, slice_names
from ml_control.core.metrics import evaluate_all
from ml_control.core.records import Verdict
from ml_control.core.tolerance import TOLERANCE
from ml_control.errors import InvalidSpec, NotProven
from ml_control.spec import Gates, PipelineSpec

__all__ = [
    "RULES",
    "DataCheck",
    "Evidence",
    "Gate",
    "Groups",
    "all_gates",
    "folded",
    "gate_config",
    "gate_names",
    "judge",
]

#: Part of every gate configuration: raised when a gate comes to mean something else, so that
#: verdicts from before do not stand for it.
RULES = 2

_BEFORE = (data_checks, archive, features, golden, witness, predictions)


def all_gates(gates: Gates) -> tuple[Gate, ...]:
    """The gates that these settings ask for, in the order in which they are shown."""
    bounds = (metric(name, gates.metrics[name]) for name in sorted(gates.metrics))
    named = zip(slice_names(gates.slices), gates.slices, strict=True)
    slices = (in_slices(name, rule) for name, rule in named)
    return (*_BEFORE, *bounds, *slices, *_asked(gates), champion)


def gate_names(spec: PipelineSpec) -> tuple[str, ...]:
    """The names of :func:`all_gates` in the same order, without judging anything."""
    before = (gate.__name__ for gate in _BEFORE)
    bounds = (f"metric:{name}" for name in sorted(spec.gates.metrics))
    asked = (gate.__name__ for gate in _asked(spec.gates))
    return (*before, *bounds, *slice_names(spec.gates.slices), *asked, champion.__name__)


def _asked(gates: Gates) -> tuple[Gate, ...]:
    """The gates on speed and size that have a bound."""
    limits = ((latency_p99, gates.latency_p99), (max_size_mb, gates.max_size_mb))
    return tuple(gate for gate, limit in limits if limit is not None)


def gate_config(spec: PipelineSpec, suite_digest: str | None) -> str:
    """Names the question that a verdict answers: everything that decides what passes.

    ``suite_digest`` is the digest of the quality configuration or its suite, None without one.
    """
    return digest_of(
        {
            "rules": RULES,
            "golden": TOLERANCE,
            "witness": WITNESS_TOLERANCE,
            "resamples": RESAMPLES,
            # Who has to approve a model is not what was proven of it.
            "gates": spec.gates.model_dump(mode="json", exclude={"approval"}),
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
