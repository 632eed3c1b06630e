"""Evidence of a healthy model, and the verdict on it, for tests of the gates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ml_control.core.gates import DataCheck, Evidence, judge
from ml_control.core.records import Audit, CheckOutcome
from ml_control.spec import PipelineSpec


def spec(task="binary", gates=None, **sections):
    columns = {"target": "y", "task": task, "features": [{"name": "x", "type": "number"}]}
    if task == "binary":
        columns["positive"] = "yes"
    source = {"format": "csv", "partition": {"start": "2026-01-01"}}
    default = {"metrics": {"auc": {"min": 0.7}}} if task == "binary" else {}
    return PipelineSpec.model_validate(
        {"name": "p", "source": source, "columns": columns, "gates": gates or default, **sections}
    )


def audit(*, data="d1", quality="q", passed=True, checks=None):
    outcomes = (CheckOutcome(name="row_count", passed=passed, reason="100 rows"),)
    return Audit(
        raw_digest="r",
        data_digest=data,
        quality_digest=quality,
        passed=passed,
        checks=outcomes if checks is None else checks,
        at=0.0,
        run="run",
    )


def scores(y, noise, seed):
    rng = np.random.default_rng(seed)
    return (1 / (1 + np.exp(-(2 * y - 1 + rng.normal(0, noise, len(y)))))).astype(np.float32)


def evidence(**changes):
    """A healthy model and its champion; ``changes`` spoil it."""
    y = np.tile([0.0, 1.0], 100)
    healthy = Evidence(
        pipeline="p",
        model_version="m2",
        champion="m1",
        test_set="t",
        data_checks=(DataCheck("2026-01-01", "d1", audit(), "q"),),
        archive_findings=(),
        golden_expected=np.array([[0.1], [0.9]], dtype=np.float32),
        golden_observed=np.array([[0.1], [0.9]], dtype=np.float32),
        golden_encoded_equal=True,
        watched_name="validation-logloss",
        watched_logged=0.25,
        watched_reproduced=0.2500001,
        y_test=y,
        predictions_test=scores(y, 0.5, 1),
        champion_predictions_test=scores(y, 0.7, 2),
        task="binary",
        labels=("no", "yes"),
    )
    return replace(healthy, **changes)


def verdict(found, pipeline=None, **of):
    return judge(found, pipeline or spec(), **{"gate_config": "g", "at": 1.0, "run": "r", **of})


def by_name(given_verdict):
    return {gate.name: gate for gate in given_verdict.gates}
