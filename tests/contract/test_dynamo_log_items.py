"""The items of the prediction log in DynamoDB: expiry, sizes, pruning, and what is missing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time

import pytest
from logged import NOON, P, R, all_joined, ids, request, told

from ml_control.aws.client import Clients
from ml_control.aws.schema import EXPIRES
from ml_control.errors import BadObject, PlatformFailed, Unknown


def test_a_request_id_is_known_until_its_items_expire(dynamo):
    """DynamoDB removes what expired only days later: readers and writers look at the time."""
    log = dynamo.client()
    log.append([request("r1")])
    log.tell(P, "r1", [told()])
    (item,) = [one for one in dynamo.items() if "Commit" in one and EXPIRES in one]
    assert time.time() + 15 * 86400 < float(item[EXPIRES]["N"]) < time.time() + 17 * 86400
    item[EXPIRES] = {"N": str(int(time.time()) - 10)}
    dynamo.dynamodb.put_item(TableName=dynamo.table, Item=item)

    assert log.find(P, "r1") is None
    assert ["waiting"] == log.tell(P, "r1", [told("lily")])
    assert [True] == dynamo.client().append([request("r1")])
    assert ["r1", "r1"] == ids(log)


def test_nothing_that_a_rollout_or_the_lake_needs_ever_expires(dynamo):
    """Only what is noted of request ids, the minutes' counts, and what was set aside."""
    log = dynamo.client()
    log.append([request("r1"), request("r2", at=time.time())])
    log.tell(P, "r1", [told()])
    log.tell(P, "never", [told()])
    expiring = {
        item["Subject"]["S"].split("#")[2] if "#id#" in item["Subject"]["S"]
        else item["Item"]["S"].partition("#")[0]
        for item in dynamo.items() if EXPIRES in item
    }  # fmt: skip

    assert {"id", "minute", "hour"} == expiring
    kept = [item for item in dynamo.items() if EXPIRES not in item]
    assert any("Waiting" in item and "#id#" in item["Subject"]["S"] for item in kept)


def noise(size, seed=1):
    """Text that hardly gets smaller."""
    return json.dumps([{"x": random.Random(seed).randbytes(size // 2).hex()}]).encode()


def test_large_requests_are_kept_in_parts(dynamo):
    """Records and answers of some megabytes come back whole; an outcome of the last is joined."""
    log, rows = dynamo.client(), 60_000
    scores = random.Random(3)
    answers = json.dumps([{"label": "a", "score": scores.random()} for _ in range(rows)]).encode()
    large = request("r1", records=noise(1_500_000), answers=answers, rows=rows)
    log.append([large, request("r2")])

    assert large == dynamo.client().find(P, "r1")
    assert [large, request("r2")] == [one.prediction for one in log.after(P, 0, 5)]
    assert ["r2", "r1"] == [one.request_id for one in log.newest(P, 2)]
    last = [told(float(i), index) for i, index in enumerate((0, 4_000, rows - 1))]
    assert ["joined"] * 3 == log.tell(P, "r1", last)
    assert ["known"] * 3 == dynamo.client().tell(P, "r1", last)
    assert [0, 4_000, rows - 1] == [one.index for one in all_joined(log)]
    assert all(len(json.dumps(one, default=repr)) < 1_600_000 for one in dynamo.items())
    assert max(len(one["Blob"]["B"]) for one in dynamo.items() if "Blob" in one) < 400_000


def test_records_that_no_transaction_takes_are_not_captured(dynamo):
    """The request is logged with its answers all the same."""
    log = dynamo.client()

    assert [True] == log.append([request("r1", records=noise(9_000_000))])
    assert request("r1", records=None) == log.find(P, "r1")


def test_answers_that_no_transaction_takes_are_refused_by_name(dynamo):
    """Nothing of it is logged, and others in the call's company are."""
    log = dynamo.client()
    futures = [log.submit([request("r1", answers=noise(9_000_000))]), log.submit([request("r2")])]
    with pytest.raises(BadObject, match="answers are") as refused:
        futures[0].result()

    assert "fewer records" in refused.value.next
    assert [True] == futures[1].result()
    assert ["r2"] == ids(log)
    assert 1 == log.count(P, NOON)


def test_many_outcomes_that_wait_are_joined_or_set_aside_together(dynamo):
    """More than one item holds; those beyond the records are counted."""
    log = dynamo.client()
    outcomes = [told("rose", index) for index in (0, 1, 2, 4_000, 9_999)]

    assert ["waiting"] * 5 == log.tell(P, "r1", outcomes)
    assert ["known"] * 5 == dynamo.client().tell(P, "r1", outcomes)
    assert [True] == dynamo.client().append([request("r1")])
    assert [0, 1] == [one.index for one in all_joined(log)]
    assert (0, 3) == (log.state(P).waiting, log.state(P).unjoinable)


def test_pruning_deletes_items_and_gives_up_step_by_step(dynamo):
    """Groups, entities and waiting outcomes of many commits go; what the head says is exact."""
    log = dynamo.client(days=1e-9)
    for turn in range(3):
        log.append([request(f"r{turn}-{i}", f"e{turn}-{i}") for i in range(60)])
        for i in range(20):
            log.submit_outcomes(P, f"never-{turn}-{i}", [told(), told("lily", 1)])
    log.tell(P, "r0-0", [told()])
    state = log.state(P)
    assert 120 == state.waiting
    log.prune(P, state.newest, state.joined, 0)

    assert (0, 120) == (log.state(P).waiting, log.state(P).expired)
    assert ([], []) == (ids(log), all_joined(log))
    assert log.find(P, "r0-0") is None
    left = {item["Subject"]["S"].removeprefix(f"log#{P}").split("#")[1:2][0]
            for item in dynamo.items() if item["Subject"]["S"] != f"log#{P}"}  # fmt: skip
    assert {"id"} == left
    assert 180 == log.traffic(P, R)["champion"].entities
    log.append([request("again", "e0-0")])
    assert 181 == dynamo.client().traffic(P, R)["champion"].entities


def test_a_group_that_was_removed_is_unknown(dynamo):
    """Nobody can tell what was in it: a person restores the table."""
    log = dynamo.client(patience=0.5)
    log.append([request("r1")])
    log.append([request("r2")])
    (first, *_) = sorted(
        (item for item in dynamo.items() if item["Subject"]["S"].endswith("#requests")),
        key=lambda item: item["Item"]["S"],
    )
    key = {name: first[name] for name in ("Subject", "Item")}
    dynamo.dynamodb.delete_item(TableName=dynamo.table, Key=key)
    for use in (
        lambda: log.after(P, 0, 10),
        lambda: log.find(P, "r1"),
        lambda: log.tell(P, "r1", [told()]),
    ):
        with pytest.raises(Unknown) as refused:
            use()
        assert "restore the table" in refused.value.next
    assert request("r2") == log.find(P, "r2")


def test_a_group_that_is_seen_late_is_waited_for(dynamo):
    """A transaction's items may be seen one after the other: a reader skips nothing for that."""
    log = dynamo.client()
    log.append([request("r1")])
    log.append([request("r2")])
    first = min(
        (item for item in dynamo.items() if item["Subject"]["S"].endswith("#requests")),
        key=lambda item: item["Item"]["S"],
    )
    key = {name: first[name] for name in ("Subject", "Item")}
    dynamo.dynamodb.delete_item(TableName=dynamo.table, Key=key)
    late = threading.Timer(
        0.1, lambda: dynamo.dynamodb.put_item(TableName=dynamo.table, Item=first)
    )
    late.start()

    assert ["r1", "r2"] == ids(log)
    late.join()


def test_a_log_of_another_form_is_refused(dynamo):
    """Its own version reads it; nothing is changed."""
    log = dynamo.client()
    log.append([request("r1")])
    (head,) = [item for item in dynamo.items() if "head" == item["Item"]["S"]]
    dynamo.dynamodb.put_item(TableName=dynamo.table, Item={**head, "Form": {"N": "2"}})
    for use in (lambda: log.state(P), lambda: dynamo.client().append([request("r2")])):
        with pytest.raises(Unknown, match="form 2, not 1"):
            use()


def test_a_table_that_is_not_there_is_told_by_name(dynamo):
    """Nothing waits for it in vain."""
    clients = Clients(dynamo.settings.model_copy(update={"tables": {"control-ledger": "absent"}}))
    log = dynamo.client_of(clients)
    for use in (lambda: log.append([request("r1")]), lambda: log.state(P)):
        with pytest.raises(PlatformFailed, match="absent"):
            use()


def test_it_starts_without_heavy_libraries():
    """A function that logs must start fast; boto3 comes with the first call."""
    program = (
        "import sys, ml_control.aws.prediction_log\n"
        "print(sorted({'numpy', 'pandas', 'polars', 'boto3', 'botocore'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "[]\n" == found.stdout
