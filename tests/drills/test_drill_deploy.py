"""Deployment killed at each of its steps: the old model serves on, the next run finishes."""

from __future__ import annotations

import pytest
from drilling import NAME

from ml_control.services.deployment import answer_golden
from ml_control.services.gatekeeper import require_once_proven

WORK = [["deploy"], ["route"]]
STEPS = [
    pytest.param("endpoints.deploy", "before", 1, False, id="not started"),
    pytest.param("endpoints._start", "after", 1, False, id="started, not named"),
    pytest.param("endpoints.deploy", "after", 1, False, id="serving, not in the Rollout"),
    pytest.param("registry.rollouts.write", "before", 1, False, id="proven live, not written"),
    pytest.param("registry.rollouts.write", "before", 2, False, id="routing, not written"),
    pytest.param("registry.rollouts.write", "after", 2, True, id="routed, not reported"),
]


@pytest.mark.parametrize(("at", "when", "nth", "moved"), STEPS)
def test_a_deployment_survives_a_kill_at_each_step(served, at, when, nth, moved):
    """The earlier model answers after the kill; the next run puts the candidate in service."""
    home = served
    lasting, before = home.lasting(), home.registry.rollouts.get(NAME)
    candidate = home.registry.models.candidate(NAME).version

    home.stopped(WORK, at, when, nth=nth).kill()

    after = home.registry.rollouts.get(NAME)
    assert (candidate if moved else before.champion) == after.champion
    old = before.variants[before.live]
    proven = require_once_proven(home.platform, home.pipeline, old.model_version)
    assert answer_golden(home.platform, old.endpoint, proven) > 0
    assert old.model_version == home.endpoints.describe(old.endpoint).model_version
    home.check_intact(lasting)

    home.do(WORK)

    rollout = home.registry.rollouts.get(NAME)
    assert candidate == rollout.champion == rollout.variants[rollout.live].model_version
    assert {"a", "b"} == set(rollout.variants)
    assert [0.0, 1.0] == sorted(rollout.weights.values())
    home.check_serving()


def test_down_ends_every_server_that_killed_deployers_left(served):
    """One server that nothing names yet, one that serves, one live: after ``down`` none runs."""
    home = served
    home.stopped([["deploy"]], "endpoints._start", "after").kill()
    assert 2 == len(home.servers())

    home.down()

    assert [] == home.alive()
    home.do([["serve"]])
    home.check_serving()
    home.down()
    assert [] == home.alive()
