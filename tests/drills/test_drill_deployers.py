"""Two deployers on one home at once: one at a time changes it, and the record stays whole."""

from __future__ import annotations

import pytest
from drilling import NAME


def versions(home):
    """(live, second, third) model versions of the home, all proven."""
    newest_first = home.registry.models.all(NAME)
    return [model.version for model in reversed(newest_first)]


@pytest.mark.parametrize("same", [True, False], ids=["same model", "different models"])
def test_a_second_deployer_is_refused_with_the_name_of_the_first(served, same):
    """While one deploys, another gets Conflict naming its run; afterwards it succeeds."""
    home = served
    _, second, third = versions(home)
    mine = second if same else third
    first = home.stopped([["deploy", second]], "endpoints.deploy", "before", run="first")

    refused = home.start([["deploy", mine]], "second").answer()["error"]
    first.go()

    assert ("Conflict", "first") == (refused["kind"], refused["holder"])
    assert [["b", second, True]] == first.answer()["done"]
    assert [["b", mine, not same]] == home.do([["deploy", mine]])
    rollout = home.registry.rollouts.get(NAME)
    assert mine == rollout.variants["b"].model_version
    assert "a" == rollout.live
    home.check_serving()


def test_two_deployers_that_start_at_the_same_moment_leave_one_server_a_variant(served):
    """At least one wins; the other wins after it or gets Conflict; the record is whole."""
    home = served
    _, second, third = versions(home)
    wanted = {"one": second, "two": third}
    both = [
        home.stopped([["deploy", version]], "registry.leases.acquire", run=run)
        for run, version in wanted.items()
    ]

    for process in both:
        process.go()
    answers = [process.answer() for process in both]

    refused = [answer["error"] for answer in answers if "error" in answer]
    assert ["Conflict"] * len(refused) == [error["kind"] for error in refused]
    assert {"one", "two", "unknown"} >= {error["holder"] for error in refused}
    assert len(refused) < 2, answers
    rollout = home.registry.rollouts.get(NAME)
    assert rollout.variants["b"].model_version in set(wanted.values())
    assert "a" == rollout.live
    home.check_serving()
