"""Leases, partitions and models: two clients, one truth."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_control.core.live_quality import OutcomeSums
from ml_control.core.records import (
    Audit,
    Dataset,
    GateResult,
    ModelVersion,
    PartitionState,
    Published,
    Request,
    Verdict,
)
from ml_control.core.training_state import TrainingState
from ml_control.errors import Conflict, NotProven
from ml_control.ports import Item, Put
from ml_control.registry import Registry

P, DAY = "flowers", "2026-11-22"
LEDGER = "control-ledger"

HOLD = """
import time
from ml_control.registry import Registry
registry = Registry(tables, lease_seconds=1.0)
with registry.leases.hold("flowers", "model", "run-1"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def published(digest="d1"):
    return Published(digest=digest, path=f"raw/{digest}", rows=3, at=1.0, run="r")


def audit(raw, *, passed):
    return Audit(
        raw_digest=raw,
        data_digest="x",
        quality_digest="q",
        passed=passed,
        checks=(),
        at=1.0,
        run="r",
    )


def model(version="abcdef0123", at=1.0):
    return ModelVersion(
        pipeline=P,
        version=version,
        files={"model.tar.gz": "0"},
        prefix=f"artifacts/{P}/{version}",
        container="3.2-0",
        dataset=Dataset(pipeline=P, parts=()),
        features_digest="f",
        test_set="t",
        training_job="j",
        hyperparameters={},
        best_iteration=1,
        rounds=2,
        metrics={"validation-auc": 0.9},
        created_at=at,
        run="r",
    )


def verdict(*, passed, version="abcdef0123", at=1.0, champion=None):
    return Verdict(
        pipeline=P,
        model_version=version,
        gate_config="g",
        champion=champion,
        test_set="t",
        passed=passed,
        gates=(GateResult(name="auc", passed=passed, reason="measured"),),
        data_checks=(),
        metrics={"auc": 0.9},
        at=at,
        run="r",
    )


@pytest.fixture
def one(registries):
    """The first client."""
    return registries[0]


@pytest.fixture
def other(registries):
    """The second client."""
    return registries[1]


# Leases


def test_a_lease_excludes_and_names_its_holder(one, other):
    """While one run holds a stage nobody else gets it, and the refusal says who has it."""
    one.leases.acquire(P, "model", "run-1")

    with pytest.raises(Conflict, match="run-1") as refusal:
        other.leases.acquire(P, "model", "run-2")

    assert "run-1" == refusal.value.detail["holder"]
    assert "run-1" == other.leases.holder(P, "model").holder
    assert "run-3" == other.leases.acquire(P, "endpoint", "run-3").holder
    assert ["run-1", "run-3"] == sorted(lease.holder for lease in one.leases.held(P))
    assert [] == one.leases.held("other")


def test_a_released_lease_is_free_at_once(one, other):
    """Giving a lease back lets the next one in, with a higher token."""
    first = one.leases.acquire(P, "model", "run-1")
    one.leases.release(first)
    assert other.leases.holder(P, "model") is None

    assert first.token + 1 == other.leases.acquire(P, "model", "run-2").token


def test_an_expired_lease_is_taken_over_and_its_zombie_fenced(one, other, clock):
    """The old holder can neither renew, nor publish, nor give back what another now holds."""
    zombie = one.leases.acquire(P, "model", "zombie")
    clock.now += 29.9
    with pytest.raises(Conflict):
        other.leases.acquire(P, "model", "heir")
    clock.now += 0.2
    heir = other.leases.acquire(P, "model", "heir")

    write = Put(LEDGER, Item("p", "s", {}), None)
    with pytest.raises(Conflict, match="token"):
        one.tables.transact([one.leases.fence(zombie), write])
    with pytest.raises(Conflict, match="zombie"):
        one.leases.renew(zombie)
    one.leases.release(zombie)
    assert heir == other.leases.holder(P, "model")
    other.tables.transact([other.leases.fence(heir), write])


def test_a_renewed_lease_stays(one, other, clock):
    """Renewing counts from now, so a working holder keeps its lease for as long as it works."""
    lease = one.leases.acquire(P, "model", "run-1")
    for _ in range(5):
        clock.now += 20
        one.leases.renew(lease)

    with pytest.raises(Conflict):
        other.leases.acquire(P, "model", "run-2")
    assert clock.now + 30 == other.leases.holder(P, "model").expires_at


def test_one_of_many_gets_the_lease(two, clock):
    """Of eight that ask at the same moment exactly one gets it; the others get a Conflict."""
    start = threading.Barrier(8)

    def ask(number):
        registry = Registry(two[number % 2], clock=clock)
        start.wait()
        try:
            return registry.leases.acquire(P, "model", f"run-{number}").token
        except Conflict:
            return None
        finally:
            two[number % 2].close()

    with ThreadPoolExecutor(8) as pool:
        assert [1] == [token for token in pool.map(ask, range(8)) if token is not None]


def test_holding_renews_while_the_work_goes_on(two):
    """Work that takes longer than the lease keeps it, and gives it back at the end."""
    holder, rival = (Registry(tables, lease_seconds=1.0) for tables in two)
    with holder.leases.hold(P, "model", "run-1") as lease:
        first = lease.expires_at
        deadline = time.time() + 20
        while rival.leases.holder(P, "model").expires_at < first + 0.5:
            assert time.time() < deadline
            threading.Event().wait(0.02)
        with pytest.raises(Conflict):
            rival.leases.acquire(P, "model", "run-2")
        holder.tables.transact([holder.leases.fence(lease)])

    assert rival.leases.holder(P, "model") is None


def test_an_error_gives_the_lease_back(one, other):
    """Work that fails leaves the stage free."""
    with pytest.raises(ZeroDivisionError), one.leases.hold(P, "model", "run-1"):
        raise ZeroDivisionError

    assert other.leases.holder(P, "model") is None


def test_the_lease_of_a_killed_process_runs_out(storage):
    """A killed holder blocks others until its lease expires, and no longer."""
    registry = Registry(storage.client(), lease_seconds=1.0)
    process = storage.process(HOLD)
    assert "held\n" == process.stdout.readline()
    with pytest.raises(Conflict, match="run-1"):
        registry.leases.acquire(P, "model", "run-2")
    process.kill()
    process.wait()

    deadline = time.time() + 20
    while registry.leases.holder(P, "model") is not None:
        assert time.time() < deadline
        threading.Event().wait(0.02)
    assert 2 == registry.leases.acquire(P, "model", "run-2").token


# Partitions


def test_the_stale_index_follows_the_state(one, other):
    """A partition is stale from new raw content until that is published or refused."""

    def stale():
        return [state.partition for state in other.partitions.stale(P)]

    def change(**fields):
        one.partitions.update(P, DAY, lambda state: state.model_copy(update=fields))

    assert PartitionState(pipeline=P, partition=DAY) == other.partitions.get(P, DAY)
    change(request=Request(key="k", attempt=1, at=1.0))
    assert [] == stale()
    change(raw=published("r1"))
    assert [DAY] == stale()
    change(processed=published("p1"), processed_from="r1")
    assert [] == stale()
    change(raw=published("r2"))
    assert [DAY] == stale()
    change(refused=audit("r2", passed=False))
    assert [] == stale()
    change(raw=published("r3"))
    assert [DAY] == stale()


def test_partitions_are_listed_from_either_end(one, other):
    """Oldest first for people, newest first for a training window."""
    days = ["2026-11-20", "2026-11-22", "2026-11-21"]
    for day in days:
        one.partitions.update(P, day, lambda state: state)

    assert sorted(days) == [state.partition for state in other.partitions.all(P)]
    assert sorted(days)[::-1] == [state.partition for state in other.partitions.newest(P)]


def test_concurrent_changes_of_different_fields_both_survive(one, other):
    """A change is applied anew to what somebody else wrote in between."""
    seen = []

    def slow(state):
        if not seen:
            other.partitions.update(
                P, DAY, lambda now: now.model_copy(update={"processed_from": "r0"})
            )
        seen.append(state.processed_from)
        return state.model_copy(update={"raw": published()})

    one.partitions.update(P, DAY, slow)

    assert [None, "r0"] == seen
    assert (published(), "r0") == (
        other.partitions.get(P, DAY).raw,
        other.partitions.get(P, DAY).processed_from,
    )


def test_a_zombie_cannot_publish_a_partition(one, other, clock):
    """An update with the fence of a lost lease is refused and changes nothing."""
    fence = one.leases.fence(one.leases.acquire(P, DAY, "zombie"))
    one.partitions.update(P, DAY, lambda s: s.model_copy(update={"processed_from": "x"}), fence)
    clock.now += 31
    other.leases.acquire(P, DAY, "heir")

    with pytest.raises(Conflict):
        one.partitions.update(P, DAY, lambda s: s.model_copy(update={"processed_from": "y"}), fence)
    assert "x" == other.partitions.get(P, DAY).processed_from


# Models


def test_the_last_registered_version_is_the_candidate(one, other):
    """Registering makes the candidate; a version that comes again stays as it was recorded."""
    fence = one.leases.fence(one.leases.acquire(P, "model", "run"))
    assert other.models.candidate(P) is None
    one.models.register(model("abcdef0123", at=1.0), fence)
    one.models.register(model("abcdef9999", at=2.0), fence)
    one.models.register(model("abcdef0123", at=3.0), fence)

    assert model("abcdef0123", at=1.0) == other.models.candidate(P)
    assert ["abcdef9999", "abcdef0123"] == [found.version for found in other.models.all(P)]


def test_a_zombie_cannot_register_a_model(one, other, clock):
    """With a lost lease neither the version nor the candidate is written."""
    fence = one.leases.fence(one.leases.acquire(P, "model", "zombie"))
    clock.now += 31
    other.leases.acquire(P, "model", "heir")

    with pytest.raises(Conflict):
        one.models.register(model(), fence)
    assert (None, []) == (other.models.candidate(P), other.models.all(P))


def test_a_version_may_be_named_by_its_beginning(one, other):
    """Six characters or more name a version when no other begins like that."""
    fence = one.leases.fence(one.leases.acquire(P, "model", "run"))
    for version in ("abcdef0123", "abcdef9999", "123456789a"):
        one.models.register(model(version), fence)

    assert "123456789a" == other.models.get(P, "123456").version
    assert "abcdef9999" == other.models.get(P, "abcdef9").version
    for unclear in ("abcdef", "12345", "fedcba", "", "#candidate", "#candi", "abcdef01234"):
        with pytest.raises(NotProven):
            other.models.get(P, unclear)


def test_a_verdict_is_given_once(one, other):
    """The same question keeps its first answer, whoever asks again and whatever comes out."""
    first = one.models.record_verdict(verdict(passed=False))
    again = other.models.record_verdict(verdict(passed=True, at=2.0))
    another = other.models.record_verdict(verdict(passed=True, at=3.0, champion="c"))

    assert verdict(passed=False) == first == again
    assert ["auc"] == again.failed
    assert [another, first] == one.models.verdicts(P)
    assert [another, first] == one.models.verdicts(P, "abcdef0123")
    assert [] == one.models.verdicts(P, "abcdef")


def test_training_and_trials_are_kept(one, other):
    """How the last training stands, and what each job logged, is read by everybody."""
    assert TrainingState(pipeline=P) == other.models.training(P)
    state = TrainingState(pipeline=P, dataset="d", attempt=2, outcome="failed", reason="why")
    one.models.set_training(state)
    one.models.record_trial(P, "job-1", {"auc": 0.8})
    one.models.record_trial(P, "job-1", {"auc": 0.9})

    assert state == other.models.training(P)
    assert ({"auc": 0.9}, None) == (other.models.trial(P, "job-1"), other.models.trial(P, "job-2"))
    assert [{"auc": 0.9}] == list(other.models.trials(P))


def test_a_decision_on_an_older_state_of_training_is_not_kept(one, other):
    """A tick and a run that ends at the same moment: the second writer reads again."""
    before = TrainingState(pipeline=P)
    asked = before.model_copy(update={"dataset": "d", "outcome": "requested"})

    assert other.models.move_training(before, asked)
    assert not one.models.move_training(before, before.model_copy(update={"dataset": "e"}))
    assert asked == one.models.training(P)


def test_the_state_of_training_changes_only_under_its_lease(one, other):
    """A run that lost its lease cannot say how the training ended; what came between is kept."""
    lease = one.leases.acquire(P, "model", "run 1")
    fence = one.leases.fence(lease)
    one.models.change_training(P, lambda state: state.model_copy(update={"number": 1}), fence)

    def ended(state):
        if state.reason != "a tick":  # as if it came while the change was made
            other.models.set_training(state.model_copy(update={"reason": "a tick"}))
        return state.model_copy(update={"outcome": "passed"})

    kept = one.models.change_training(P, ended, fence)
    one.leases.release(lease)
    other.leases.acquire(P, "model", "run 2")
    with pytest.raises(Conflict):
        one.models.change_training(P, lambda state: state, fence)

    assert (1, "a tick", "passed") == (kept.number, kept.reason, kept.outcome)
    assert kept == other.models.training(P)


def test_outcomes_are_summed_once_by_whoever_is_first(one, other):
    """Two readers of the same outcomes: one of them counts."""
    before = one.outcomes.get(P)
    after = OutcomeSums(pipeline=P, offset=9, told={"2026-01-01": 9})

    assert (True, False) == (one.outcomes.move(before, after), other.outcomes.move(before, after))
    assert after == other.outcomes.get(P)
