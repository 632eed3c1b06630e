"""Intake, registry and lake on the second emulator: what matters most of their contracts."""

from __future__ import annotations

import time

import pytest
from arriving import Bucket
from emulators import credentials, fresh_settings, ministack_url
from storages import DynamoStorage
from suites import contract, parts

from ml_control.testing.account import make_arrivals

shared = parts()
clock, registries, two = shared.clock, shared.registries, shared.two
for module, chosen in {
    "test_tables": [
        "test_an_item_can_be_created_once",
        "test_a_write_over_a_version_that_moved_is_refused",
        "test_an_unconditional_write_always_wins_and_still_counts",
        "test_a_transaction_is_all_or_nothing",
        "test_a_check_fences_the_writes_beside_it",
        "test_each_write_on_its_own",
        "test_an_item_moves_between_index_values",
    ],
    "test_ledger": [
        "test_recording_twice_is_recording_once",
        "test_a_version_put_again_is_current_again",
        "test_a_run_takes_over_what_a_dead_run_claimed",
        "test_events_are_moved_only_as_they_were_read",
        "test_partitions_and_pipelines_stay_apart",
    ],
    "test_registry": [
        "test_a_lease_excludes_and_names_its_holder",
        "test_an_expired_lease_is_taken_over_and_its_zombie_fenced",
        "test_one_of_many_gets_the_lease",
        "test_the_last_registered_version_is_the_candidate",
        "test_a_verdict_is_given_once",
    ],
    "test_history": [
        "test_a_rollout_moves_by_compare_and_set",
        "test_a_zombie_moves_no_traffic",
        "test_other_decisions_do_not_stop_a_decision",
    ],
    "test_notifications": [
        "test_a_file_becomes_a_pinned_notice",
        "test_a_notice_comes_until_it_is_acknowledged",
        "test_one_name_with_two_contents_is_two_versions",
        "test_admit_copies_and_leaves_the_original",
    ],
}.items():
    globals().update(contract(module, only=chosen, fixtures=["one", "other"]))


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """DynamoDB tables on ministack."""
    monkeypatch.setattr("ml_control.aws.registry.reading._PAGE", DynamoStorage.page)
    with credentials("test"):
        found = DynamoStorage(fresh_settings(ministack_url()), tmp_path / "lake")
        yield found
        found.end()


class Patient(Bucket):
    """Messages stay out of sight for as long as a busy machine needs to look at them once."""

    def client(self, **more):
        return super().client(**{"visibility_seconds": 4, **more})

    def again(self):
        time.sleep(4.1)


@pytest.fixture
def place(tmp_path):
    """A raw bucket on ministack, with its rules and its queue."""
    with credentials("test"):
        yield Patient(tmp_path, make_arrivals(fresh_settings(ministack_url())))


@pytest.fixture
def one(request):
    """The first client of what the test is about."""
    if "place" in request.fixturenames:
        return request.getfixturevalue("place").client()
    return request.getfixturevalue("registries")[0]


@pytest.fixture
def other(request):
    """The second client."""
    if "place" in request.fixturenames:
        return request.getfixturevalue("place").client()
    return request.getfixturevalue("registries")[1]
