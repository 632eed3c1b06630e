"""The gates: what passes, what never passes, and what names a verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.gates import (
    DataCheck,
    Evidence,
    Groups,
    gate_config,
    gate_names,
    judge,
)
from ml_control.core.records import Audit, CheckOutcome, Verdict
from ml_control.errors import InvalidSpec
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
    ],
}


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


def test_first_model_needs_no_champion():
    """Without a champion the comparison passes and says so; predictions of nobody do not."""
    first = verdict(evidence(champion=None, champion_predictions_test=None))
    unnamed = verdict(evidence(champion=None))

    assert by_name(first)["champion"].reason == "no champion yet"
    assert first.passed
    assert unnamed.failed == ["champion"]


def test_champion_margin():
    """A model that is itself passes at margin 0; a clearly worse one does not; a margin helps."""
    strict = spec(gates={"champion": {"margin": 0.0}})
    loose = spec(gates={"champion": {"margin": 0.5}})
    good, bad = evidence().predictions_test, scores(evidence().y_test, 3.0, 3)
    worse = evidence(predictions_test=bad, champion_predictions_test=good)

    assert verdict(evidence(champion_predictions_test=good.copy()), strict).passed
    assert verdict(evidence(predictions_test=good, champion_predictions_test=bad), strict).passed
    assert verdict(worse, strict).failed == ["champion"]
    assert verdict(worse, loose).passed


def test_champion_comparison_needs_proof_not_luck():
    """A model that scored better by chance on few rows is not thereby shown to be no worse."""
    y = np.tile([0.0, 1.0], 10)
    old = np.where(np.arange(20) < 5, 1 - y, y) * 0.8 + 0.1
    new = np.where(np.arange(20) >= 16, 1 - y, y) * 0.8 + 0.1
    found = evidence(y_test=y, predictions_test=new, champion_predictions_test=old)
    result = by_name(verdict(found, spec(gates={"champion": {"metric": "accuracy"}})))["champion"]

    assert pytest.approx(result.evidence["difference"]) == 0.05
    assert not result.passed


@pytest.mark.parametrize(
    "predictions", [None, np.full(200, np.nan), np.full(100, 0.5)], ids=["none", "nan", "short"]
)
def test_champion_without_predictions_fails(predictions):
    """A champion that cannot be compared with is not a champion that was beaten."""
    assert verdict(evidence(champion_predictions_test=predictions)).failed == ["champion"]


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


def test_a_champion_that_cannot_be_compared_says_why():
    """Where the champion answers another question, the gate says no and names the reason."""
    found = evidence(
        champion_predictions_test=None, champion_problem="it answers for labels ('a', 'b')"
    )

    result = next(gate for gate in verdict(found).gates if gate.name == "champion")

    assert not result.passed
    assert "it answers for labels ('a', 'b')" in result.reason


def sliced(**rule):
    """A pipeline with one slice on a category."""
    features = [{"name": "x", "type": "category"}]
    columns = {"target": "y", "task": "binary", "positive": "yes", "features": features}
    return spec(columns=columns, gates={"slices": [{"column": "x", "metric": "accuracy", **rule}]})


def test_every_large_group_must_fulfil_a_slice():
    """One bad group of enough rows fails; a small one is shown and not judged; none proves none."""
    y = np.tile([0.0, 1.0], 100)
    predictions = np.where(np.arange(200) < 60, 1 - y, y) * 0.8 + 0.1
    codes = np.where(np.arange(200) < 60, 0, np.where(np.arange(200) < 190, 1, 2))
    found = evidence(y_test=y, predictions_test=predictions, champion=None,
                     champion_predictions_test=None,
                     groups={"x": Groups(("bad", "good", None), codes)})  # fmt: skip

    result = by_name(verdict(found, sliced(min=0.9)))["slice:x:accuracy"]

    assert not result.passed
    assert [("bad", 60, False), ("good", 130, True), ("(missing)", 10, None)] == [
        (group["level"], group["rows"], group["passed"]) for group in result.evidence["groups"]
    ]
    assert verdict(found, sliced(min=0.9, min_rows=70)).passed
    assert verdict(found, sliced(min=0.0, min_rows=500)).failed == ["slice:x:accuracy"]
    assert verdict(replace(found, groups={}), sliced(min=0.0)).failed == ["slice:x:accuracy"]


def test_latency_and_size_have_bounds():
    """What was not measured or is above its bound fails; the bound itself passes."""
    pipeline = spec(gates={"latency_p99": "50 ms", "max_size_mb": 1})

    assert verdict(evidence(), pipeline).failed == ["latency_p99", "max_size_mb"]
    good = evidence(latency_p99_ms=50.0, archive_bytes=1_000_000)
    assert verdict(good, pipeline).failed == []
    slow = replace(good, latency_p99_ms=50.1, archive_bytes=1_000_001)
    assert verdict(slow, pipeline).failed == ["latency_p99", "max_size_mb"]


def test_a_model_of_zeros_is_no_model_of_a_tiny_target():
    """Tolerances scale with the target: zeros do not stand for values around 1e-7."""
    y = np.linspace(1e-7, 3e-7, 200)
    exact = y.astype(np.float32)
    found = evidence(
        task="regression", labels=(), y_test=y, predictions_test=exact, champion=None,
        champion_predictions_test=None, golden_expected=exact[:9, None],
        golden_observed=exact[:9, None], watched_logged=1e-9, watched_reproduced=1e-9,
    )  # fmt: skip
    zeros = replace(found, golden_observed=np.zeros((9, 1)), watched_reproduced=2e-7)

    assert verdict(found, spec("regression")).failed == []
    assert verdict(zeros, spec("regression")).failed == ["golden", "witness"]


def test_golden_records_of_one_prediction_prove_nothing():
    """A model of one leaf would answer them too, while test rows are told apart."""
    alike = np.full((5, 1), 0.5, dtype=np.float32)

    found = verdict(evidence(golden_expected=alike, golden_observed=alike))

    assert found.failed == ["golden"]
