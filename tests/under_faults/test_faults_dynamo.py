"""The registry in DynamoDB while answers get lost on the way: an adapter that tries again by itself
says of each write what it came to, not what its own second try met.
"""

from __future__ import annotations

import pytest
from emulators import credentials, fresh_settings, moto_url
from storages import DynamoStorage
from suites import contract

from ml_control.testing.fault_proxy import FaultProxy

SEED = 18  # the first write of every test loses its answer
WRITES = ("TransactWriteItems", "PutItem", "UpdateItem", "BatchWriteItem")
for module, chosen in {
    "test_tables": [
        "test_an_item_can_be_created_once",
        "test_a_write_over_a_version_that_moved_is_refused",
        "test_a_transaction_is_all_or_nothing",
        "test_each_write_on_its_own",
    ],
    "test_ledger": [
        "test_recording_twice_is_recording_once",
        "test_a_version_put_again_is_current_again",
        "test_a_run_takes_over_what_a_dead_run_claimed",
        "test_an_event_put_again_while_claimed_stays_open",
    ],
    "test_registry": [
        "test_a_lease_excludes_and_names_its_holder",
        "test_a_verdict_is_given_once",
        "test_a_decision_on_an_older_state_of_training_is_not_kept",
    ],
    "test_history": ["test_a_rollout_moves_by_compare_and_set"],
}.items():
    globals().update(contract(module, only=chosen))


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """Tables whose writes lose four answers in ten."""
    monkeypatch.setattr("ml_control.aws.registry.reading._PAGE", DynamoStorage.page)
    lossy = [f"dynamodb.{name}" for name in WRITES]
    with credentials(), FaultProxy(moto_url(), seed=SEED, drop_after=0.4, only=lossy) as proxy:
        with proxy.plan.quiet():
            found = DynamoStorage(fresh_settings(proxy.url, max_attempts=8), tmp_path / "lake")
        yield found
        found.end()
        assert proxy.plan.counts["after"] > 0
