"""Thousands of seeded experiments' counts, looked at after each: how often they are misjudged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from ml_control.core.experiment import ArmCounts, ExperimentSettings
from ml_control.core.experiment.counts import (
    _ABOVE,
    _BOTH_WAYS,
    ALPHA_GUARDRAIL,
    ALPHA_SPLIT,
    guardrails,
    split_probability,
)

TESTS = 2000


def upper_bound(tests, rate):
    """The number of cases that one in twenty batches of tests at this rate exceeds."""
    return binom.ppf(0.95, tests, rate)


def question(limit):
    """An error rate that is guarded."""
    return ExperimentSettings(
        kind="proportion", alpha=0.05, min_samples=50, max_duration=1e9, error_rate=limit
    )


def stepped(i):
    """A share that is raised while the experiment runs."""
    return 0.05 if i < 500 else 0.25 if i < 800 else 0.6


def looked_at(counts, trials, rate, tilts):
    """The counts' evidence at all looks: like the code, over arrays ``(..., looks)``."""
    logs = np.stack([L * counts - trials * np.log1p(rate * np.expm1(L)) for L in tilts])
    most = logs.max(axis=0)
    return most + np.log(np.exp(logs - most).mean(axis=0))


@pytest.mark.parametrize(("rate", "limit"), [(0.01, 0.01), (0.2, 0.2), (0.004, 0.01)])
def test_a_guardrail_at_its_limit_is_rarely_breached(rate, limit):
    """Looked at after each of 1,000 requests: at most as often as its level says."""
    rng = np.random.default_rng(4)
    counts = np.cumsum(rng.random((TESTS, 1000)) < rate, axis=1)
    trials = np.arange(1, 1001)

    evidence = looked_at(counts, trials, limit, _ABOVE)
    breached = (evidence >= -math.log(ALPHA_GUARDRAIL)) & (counts > limit * trials)

    assert breached.any(axis=1).sum() <= upper_bound(TESTS, ALPHA_GUARDRAIL)
    for one in range(0, TESTS, 100):  # the code says the same
        at = int(breached[one].argmax()) if breached[one].any() else 999
        errors, requests = int(counts[one, at]), int(trials[at])
        found = guardrails(question(limit), ArmCounts(requests=requests, errors=errors))
        assert bool(breached[one, at]) == ("breached" == found["error_rate"])


def test_a_challenger_beyond_its_limit_is_caught():
    """At three times the limit of 1 %, nearly all are caught, most of them within 700 requests."""
    counts = np.cumsum(np.random.default_rng(5).random((500, 3000)) < 0.03, axis=1)
    evidence = looked_at(counts, np.arange(1, 3001), 0.01, _ABOVE)
    caught = evidence >= -math.log(ALPHA_GUARDRAIL)

    assert caught.any(axis=1).mean() > 0.99
    assert np.median(caught.argmax(axis=1)) < 700


def test_a_split_as_intended_is_rarely_called_uneven():
    """Shares are raised meanwhile, and each of 1,000 entities is looked at: at most one of 1,000
    experiments is halted.
    """
    rng = np.random.default_rng(6)
    share = np.array([stepped(i) for i in range(1000)])
    intended = rng.random((TESTS, 1000)) < share
    entities, expected = np.arange(1, 1001), np.cumsum(share)

    counts = np.cumsum(intended, axis=1)
    evidence = looked_at(counts, entities, expected / entities, _BOTH_WAYS)

    assert (evidence.max(axis=1) >= -math.log(ALPHA_SPLIT)).sum() <= upper_bound(TESTS, ALPHA_SPLIT)
    for one in range(0, TESTS, 200):
        new = int(counts[one, -1])
        arms = (
            ArmCounts(entities=1000 - new, expected_entities=1000 - expected[-1]),
            ArmCounts(entities=new, expected_entities=expected[-1]),
        )
        assert split_probability(*arms) == pytest.approx(min(1.0, math.exp(-evidence[one, -1])))


def test_lost_entities_are_found():
    """When one in six of the challenger's entities is lost, most experiments are halted."""
    rng = np.random.default_rng(7)
    lost = rng.random((200, 4000)) < 0.5 * 5 / 6 / (0.5 + 0.5 * 5 / 6)
    entities = np.arange(1, 4001)

    evidence = looked_at(np.cumsum(lost, axis=1), entities, 0.5, _BOTH_WAYS)

    assert ((evidence >= -math.log(ALPHA_SPLIT / 2)).any(axis=1)).mean() > 0.9
