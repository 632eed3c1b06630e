"""What matters most of the contract of endpoints while calls fail, with real servers."""

from __future__ import annotations

import pytest
from endpoint_models import servers
from failing import plan_of, wrapped
from suites import contract

from ml_control.local.endpoints import LocalEndpoints

globals().update(
    contract(
        "test_endpoints",
        only=[
            "test_a_deployed_model_answers_like_the_booster",
            "test_only_a_server_of_the_named_archive_answers",
            "test_deploying_what_is_serving_changes_nothing",
            "test_a_stopped_endpoint_can_be_brought_back",
        ],
    )
)


@pytest.fixture(params=["1", "random"])
def clients(request, tmp_path):
    """Two clients that fail and ask again."""
    plan = plan_of(request.param)
    made = [LocalEndpoints(tmp_path / "endpoints") for _ in range(2)]
    yield [wrapped(client, plan, "endpoints") for client in made]
    for name in made[0].names():
        made[0].stop(name)
    assert servers(tmp_path) == []
