"""The gates: what passes, what never passes, and what names a verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import audit, by_name, evidence, spec, verdict

from ml_control.core.gates import (
    DataCheck,
    gate_config,
    gate_names,
)
from ml_control.core.records import Verdict
from ml_control.errors import InvalidSpec

SPOILS = {
    "data_checks": [
        {"data_checks": ()},
        {"data_checks": (DataCheck("2026-01-01", "d1", None, "q"),)},
        {"data_checks": (DataCheck("2026-01-01", "d1", audit(data="d0"), "q"),)},
        {"data_checks": (DataCheck("2026-01-01", "d1", audit(quality="old"), "q"),)},
        {"data_checks": (DataCheck("2026-01-01", "d1", audit(passed=False), "q"),)},
        {"data_checks": (DataCheck("2026-01-01", "d1", audit(checks=()), "q"),)},
        {
            "data_checks": (
                DataCheck("2026-01-01", "d1", audit(), "q"),
                DataCheck("2026-01-02", "d2", None, "q"),
            )
        },
    ],
    "archive": [
        {"archive_findings": None},
        {"archive_findings": ({"rule": "one-model", "object": "b", "reason": "a second model"},)},
    ],
    "features": [{"golden_encoded_equal": False}, {"golden_encoded_equal": None}],
    "golden": [
        {"golden_expected": None},
        {"golden_observed": None},
        {"golden_observed": np.array([[0.1], [0.91]])},
        {"golden_observed": np.array([[0.1], [0.9 + 4e-6]])},
        {"golden_observed": np.array([[0.1], [math.nan]])},
        {"golden_observed": np.array([0.1, 0.9])},
        {"golden_observed": np.array([["0.1"], ["x"]])},
        {
            "golden_observed": np.full((2, 1), math.nan),
            "golden_expected": np.full((2, 1), math.nan),
        },
        {"golden_observed": np.empty((0, 1)), "golden_expected": np.empty((0, 1))},
    ],
    "witness": [
        {"watched_logged": None},
        {"watched_reproduced": None},
        {"watched_reproduced": math.nan},
        {"watched_logged": math.nan},
        {"watched_logged": math.inf, "watched_reproduced": math.inf},
        {"watched_reproduced": 0.2501},
        {"watched_reproduced": 0.25002, "watched_rounding": 5e-6},
        {"watched_reproduced": 0.25, "watched_rounding": 0.02},
    ],
}


def test_a_printed_metric_is_a_witness_within_its_digits():
    """Its last digit may be off by half; where that hides differences it proves nothing."""
    near = evidence(watched_reproduced=0.250014, watched_rounding=5e-6)
    assert by_name(verdict(near))["witness"].passed
    assert not by_name(verdict(replace(near, watched_rounding=0.0)))["witness"].passed
    small = replace(
        near,
        task="regression",
        y_test=near.y_test * 1e-4,
        watched_logged=0.00004,
        watched_reproduced=0.000041,
    )

    gate = by_name(verdict(small, spec("regression", {"metrics": {"rmse": {"max": 1}}})))["witness"]

    assert not gate.passed
    assert "too few digits" in gate.reason


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, all_of in SPOILS.items() for change in all_of]
)
def test_one_spoilt_thing_fails_its_gate_and_the_verdict(name, change):
    """Evidence that is missing, wrong or not finite fails its own gate, and so the verdict."""
    found = verdict(evidence(**change))

    assert [name] == found.failed
    assert not found.passed
    assert by_name(found)[name].reason


def test_healthy_evidence_passes():
    """A sound model passes every gate, each with a reason and what was required."""
    found = verdict(evidence())

    assert found.failed == []
    assert found.passed
    assert all(gate.reason and gate.required for gate in found.gates)
    assert found.metrics["auc"] == by_name(found)["metric:auc"].observed
    assert found.model_dump() == Verdict.model_validate_json(found.model_dump_json()).model_dump()


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted(SPOILS)), min_size=1), st.data())
def test_any_failing_gate_fails_the_verdict(names, data):
    """Whichever gates fail, the verdict says no and names exactly these."""
    changes = {}
    for name in names:
        changes |= data.draw(st.sampled_from(SPOILS[name]))

    found = verdict(evidence(**changes, champion=None, champion_predictions_test=None))

    assert names == set(found.failed)
    assert not found.passed


@pytest.mark.parametrize(
    "predictions",
    [None, np.full(200, np.nan), np.full(200, 2.0), np.full(199, 0.5), np.full((200, 2), 0.5), []],
)
def test_unusable_predictions_fail_everything_that_needs_them(predictions):
    """Without a finite probability for each row there is neither a metric nor a comparison."""
    found = verdict(evidence(predictions_test=predictions))

    assert found.failed == ["predictions", "metric:auc", "champion"]
    assert found.metrics == {}


def test_no_test_rows_fail():
    """An empty test split proves nothing."""
    nothing = np.array([])
    found = verdict(
        evidence(y_test=nothing, predictions_test=nothing, champion_predictions_test=nothing)
    )

    assert found.failed == ["predictions", "metric:auc", "champion"]


def test_undefined_metric_fails_its_gate():
    """A bound on a metric that has no value on these rows is not met."""
    found = verdict(evidence(y_test=np.zeros(200), champion=None, champion_predictions_test=None))

    assert found.failed == ["metric:auc"]
    assert "one class" in by_name(found)["metric:auc"].reason


def test_probabilities_need_a_column_for_each_label():
    """A multiclass model whose classes are not the labels is refused."""
    y = np.array([0, 1, 2] * 10)
    found = evidence(
        task="multiclass",
        labels=("a", "b", "c", "d"),
        y_test=y,
        predictions_test=np.eye(3)[y],
        champion=None,
        champion_predictions_test=None,
    )

    assert verdict(found, spec("multiclass")).failed == ["predictions"]
    assert verdict(replace(found, labels=("a", "b", "c")), spec("multiclass")).failed == []


def test_metric_bounds():
    """Lower and upper bounds both hold, the bound itself passes, and a bound must be a number."""

    def failed(**bounds):
        found = evidence(champion=None, champion_predictions_test=None)
        return verdict(found, spec(gates={"metrics": bounds})).failed

    auc = verdict(evidence()).metrics["auc"]
    assert failed(auc={"min": auc, "max": auc}, logloss={"max": 0.69}) == []
    assert failed(auc={"min": math.nextafter(auc, 2)}) == ["metric:auc"]
    assert failed(auc={"min": 0.5}, logloss={"max": 0.01}) == ["metric:logloss"]
    with pytest.raises(ValueError, match="finite number"):
        failed(auc={"max": math.nan})


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.sampled_from(["auc", "accuracy", "recall", "logloss"]),
)
def test_worse_predictions_never_pass_where_better_fail(seed, bound, name):
    """Moving every score towards its truth never turns a passing metric gate into a failing one."""
    rng = np.random.default_rng(seed)
    y = np.r_[0.0, 1.0, rng.integers(0, 2, 20)]
    worse = rng.random(22)
    better = worse + (y - worse) * rng.random(22)
    limit = {"max" if name == "logloss" else "min": bound}
    pipeline = spec(gates={"metrics": {name: limit}})
    alone = {"champion": None, "champion_predictions_test": None, "y_test": y}

    passed = [
        by_name(verdict(evidence(predictions_test=p, **alone), pipeline))[f"metric:{name}"].passed
        for p in (worse, better)
    ]

    assert passed[0] <= passed[1]


@given(st.floats(0, 1e12), st.text(max_size=9))
@settings(max_examples=20, deadline=None)
def test_key_depends_on_the_question_only(at, run):
    """When and by which run a verdict was made does not change its key; the question does."""
    first = evidence(champion=None, champion_predictions_test=None)

    assert verdict(first).key == verdict(first, at=at, run=run).key
    assert verdict(first).key != verdict(replace(first, model_version="m3")).key
    assert verdict(first).key != verdict(replace(first, test_set="t2")).key
    assert verdict(first).key != verdict(evidence()).key
    assert verdict(first).key != verdict(first, gate_config="h").key


def test_gate_config_names_what_decides():
    """Settings that change what passes change the configuration; descriptions do not."""
    base = gate_config(spec(), "s")
    changed = [
        gate_config(spec(), None),
        gate_config(spec(), "s2"),
        gate_config(spec(gates={"metrics": {"auc": {"min": 0.8}}}), "s"),
        gate_config(spec(gates={"champion": {"margin": 0.5}}), "s"),
        gate_config(spec("regression"), "s"),
        gate_config(spec(quality={"min_rows": 7}), "s"),
    ]

    assert base == gate_config(spec(description="another", owners=["team:x"]), "s")
    assert len({base, *changed}) == 1 + len(changed)


def test_other_task_is_refused():
    """Evidence gathered for another task cannot be judged by this pipeline's gates."""
    with pytest.raises(InvalidSpec, match="regression"):
        verdict(evidence(), spec("regression"))


def test_gate_names_are_unique_and_complete():
    """There is one gate for each bound beside the fixed ones, shown in a fixed order."""
    pipeline = spec(gates={"metrics": {"recall": {"min": 0}, "auc": {"min": 0}}})
    fixed = ["data_checks", "archive", "features", "golden", "witness", "predictions"]

    names = [gate.name for gate in verdict(evidence(), pipeline).gates]

    assert [*fixed, "metric:auc", "metric:recall", "champion"] == names
    assert names == list(gate_names(pipeline))
