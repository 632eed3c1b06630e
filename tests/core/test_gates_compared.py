"""The gates that compare: with the champion, in every group, against bounds of size and time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judging import by_name, evidence, scores, spec, verdict

from ml_control.core.gates import Groups


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
