"""Deployment killed at each of its steps: the old model serves on, the next run finishes."""

from __future__ import annotations

from drilling import NAME

from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.services.releases.deployment import answer_golden

WORK = [["deploy"], ["route"]]
ENDPOINTS, SERVICE = "ml_control.local.endpoints", "ml_control.services.releases.deployment"
STEPS = [  # in their order: (call, before or after it, with what, which time)
    ("endpoints.deploy", "before", "", 1),  # nothing written
    (f"{ENDPOINTS}:write_whole", "after", "model.tar.gz", 1),  # archive in the endpoint's folder
    ("endpoints._start", "before", "", 1),  # all files there, no server
    ("endpoints._start", "after", "", 1),  # server started, not named
    (f"{ENDPOINTS}:write_json", "after", "current.json", 1),  # named, what was before not ended
    (f"{SERVICE}:answer_golden", "before", "", 1),  # serving, not asked
    (f"{SERVICE}:answer_golden", "after", "", 1),  # asked, not in the Rollout
    ("registry.rollouts.write", "before", "", 1),  # proven live, not written
    ("registry.rollouts.write", "after", "", 1),  # in the Rollout without traffic
    (f"{SERVICE}:answer_golden", "after", "", 2),  # both steps asked it, not routed
    ("registry.rollouts.write", "before", "", 1),  # routing, not written
]


def test_a_deployment_survives_kills_at_every_step(served):
    """One deployer after another is killed, each a step further. The earlier model answers all
    the while, and the last run puts the candidate in service, with one server a variant.
    """
    home = served
    lasting, before = home.lasting(), home.registry.rollouts.get(NAME)
    candidate = home.registry.models.candidate(NAME).version
    old = before.variants[before.live]
    proven = require_once_proven(home.platform, home.pipeline, old.model_version)

    for at, when, match, nth in STEPS:
        home.released()
        home.stopped(WORK, at, when, match=match, nth=nth).kill()

        after = home.registry.rollouts.get(NAME)
        assert (before.champion, before.live) == (after.champion, after.live), (at, when, nth)
        assert old == after.variants[after.live]
        assert old.model_version == home.endpoints.describe(old.endpoint).model_version
        assert answer_golden(home.platform, old.endpoint, proven) > 0
        home.check_intact(lasting)

    home.do(WORK)

    rollout = home.registry.rollouts.get(NAME)
    assert candidate == rollout.champion == rollout.variants[rollout.live].model_version
    assert {"a": 0.0, "b": 1.0} == rollout.weights
    home.check_serving()


def test_a_run_killed_after_it_routed_changes_nothing_when_it_is_done_again(served):
    """The Rollout is written, the run dies unreported: the next one finds its work done."""
    home = served
    home.stopped(WORK, "registry.rollouts.write", "after", nth=2).kill()
    routed = home.registry.rollouts.get(NAME)

    ((variant, version, changed), again) = home.do(WORK)

    assert (routed.live, routed.champion, False) == (variant, version, changed)
    assert routed.to_json() == again
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
