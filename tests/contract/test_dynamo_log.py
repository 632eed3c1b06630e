"""What is special to the prediction log in DynamoDB: lost answers, contention, sizes, expiry."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError
from logged import NOON, P, R, all_joined, ids, request, told

from ml_control.aws.client import Clients
from ml_control.errors import Retryable

CONTRACT = Path(__file__).parent
WRITES = "TransactWriteItems"
PROCESS = """
import sys
sys.path[:0] = {paths!r}
from logged import P, request, told
from ml_control.aws.client import Clients
from ml_control.aws.prediction_log import DynamoPredictionLog
from ml_control.settings import AwsSettings

log = DynamoPredictionLog(Clients(AwsSettings.model_validate_json(sys.argv[1])))
mine = sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
new = []
for i in range({rounds}):
    ids = [f"shared-{{i}}", f"{{mine}}-{{i}}"]
    found = log.append([request(id, entity=id) for id in ids])
    new += [id for id, fresh in zip(ids, found) if fresh]
    log.tell(P, ids[1], [told()])
print(" ".join(new), flush=True)
"""


def alone(dynamo, **changes):
    """A client with connections of its own, which a test may disturb."""
    clients = Clients(dynamo.settings.model_copy(update=changes))
    return dynamo.client_of(clients), clients.client("dynamodb")


def before_send(dynamodb, operation, handler):
    dynamodb.meta.events.register_first(f"before-send.dynamodb.{operation}", handler)


class Dropped:
    """Sends requests and drops their answers, as many as it is told."""

    def __init__(self, dynamodb, count, meanwhile=lambda: None, operation=WRITES):
        self.left, self.meanwhile, self.dynamodb = count, meanwhile, dynamodb
        before_send(dynamodb, operation, self)

    def __call__(self, request, **_):
        if self.left <= 0:
            return
        self.left -= 1
        self.dynamodb._endpoint.http_session.send(request)
        self.meanwhile()
        raise ReadTimeoutError(endpoint_url=request.url)


def test_two_processes_log_into_one_pipeline_at_once(dynamo):
    """Shared ids are new to one of them; offsets have no gap, and a reader that follows meanwhile
    gets every request in order.
    """
    rounds, done, followed = 10, threading.Event(), []
    program = PROCESS.format(rounds=rounds, paths=[str(CONTRACT)])
    arguments = [sys.executable, "-c", program, dynamo.settings.model_dump_json()]
    writers = [
        subprocess.Popen(
            [*arguments, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    log = dynamo.client()

    def follow():
        after, ending = 0, False
        while not (ending and not (page := log.after(P, after, 7))):
            page = log.after(P, after, 7)
            followed.extend(page)
            after = page[-1].offset if page else after
            ending = done.is_set()

    reader = threading.Thread(target=follow)
    try:
        for writer in writers:
            assert "ready\n" == writer.stdout.readline()
        reader.start()
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        new = [id for writer in writers for id in writer.communicate(timeout=60)[0].split()]
    finally:
        done.set()
        for writer in writers:
            writer.kill()
            writer.wait()
    reader.join()

    assert 3 * rounds == len(new) == len(set(new))
    assert sorted(new) == sorted(ids(log))
    offsets = [one.offset for one in log.after(P, 0, 1000)]
    assert offsets == [*range(offsets[0], offsets[0] + 3 * rounds)]
    assert offsets == [one.offset for one in followed]
    assert 3 * rounds == log.count(P, NOON) == log.traffic(P, R)["champion"].requests
    assert 3 * rounds == log.traffic(P, R)["champion"].entities
    joined = [one.offset for one in all_joined(log)]
    assert joined == [*range(joined[0], joined[0] + 2 * rounds)]


@pytest.mark.parametrize("others", [0, 1, 25], ids=["alone", "another", "many others"])
def test_a_commit_whose_answer_was_lost_is_known_as_our_own(dynamo, others):
    """It was done, the caller saw a timeout: tried again it is told as new, and logged once; also
    when others wrote meanwhile, more than the head remembers.
    """
    log, dynamodb = alone(dynamo, max_attempts=1)
    other = dynamo.client()
    log.append([request("r0")])

    def meanwhile():
        for i in range(others):
            other.append([request(f"other-{i}")])

    drop = Dropped(dynamodb, 1, meanwhile)
    told_new = log.append([request("r1", "x"), request("r1", "x"), request("r2", "y")])

    assert 0 == drop.left
    assert [True, False, True] == told_new
    expected = ["r0", "r1", "r2", *(f"other-{i}" for i in range(others))]
    assert expected == ids(other)
    assert len(expected) == other.count(P, NOON) == other.traffic(P, R)["champion"].requests
    drop.left = 1
    assert ["joined"] == log.tell(P, "r1", [told()]) or others == 25
    assert 1 == len(all_joined(other))
    assert ["known"] == log.tell(P, "r1", [told()])


def test_a_commit_that_is_done_late_is_known_as_our_own(dynamo):
    """The caller saw a timeout, looked, found nothing, and drafted anew: then the first came."""
    log, dynamodb = alone(dynamo, max_attempts=1)
    log.append([request("r0")])
    kept = []

    def late(request, **_):
        if not kept:
            kept.append(request)
            raise ReadTimeoutError(endpoint_url=request.url)
        if len(kept) == 1:
            kept.append(dynamodb._endpoint.http_session.send(kept[0]))

    before_send(dynamodb, WRITES, late)

    assert [True, True] == asyncio.run(awaited(log.submit([request("r1"), request("r2")])))
    assert 200 == kept[1].status_code
    assert ["r0", "r1", "r2"] == ids(dynamo.client())
    assert 3 == log.count(P, NOON)


def test_a_commit_that_is_still_under_way_is_known_as_our_own(dynamo):
    """Asked for again by the same token, DynamoDB says that it is at it; then it was done."""
    log, dynamodb = alone(dynamo, max_attempts=1)
    log.append([request("r0")])
    said = []

    def under_way(request, **_):
        if said:
            return None
        said.append(dynamodb._endpoint.http_session.send(request))
        body = {"__type": "x#TransactionInProgressException", "Message": "in progress"}
        raw = type("Raw", (), {"stream": lambda self: [json.dumps(body).encode()]})()
        return AWSResponse(request.url, 400, {}, raw)

    before_send(dynamodb, WRITES, under_way)

    assert [True, True] == log.append([request("r1"), request("r2")])
    assert 200 == said[0].status_code
    assert ["r0", "r1", "r2"] == ids(dynamo.client())
    assert 3 == log.count(P, NOON)


async def awaited(future):
    return await asyncio.wrap_future(future)


def test_botocores_own_retry_of_a_lost_answer_changes_nothing(dynamo):
    """It sends the same token again."""
    log, dynamodb = alone(dynamo, max_attempts=3)
    drop = Dropped(dynamodb, 1)

    assert [True] == log.append([request("r1")])
    assert 0 == drop.left
    assert ["r1"] == ids(dynamo.client())


def test_what_was_given_up_but_done_is_known_when_it_is_brought_again(dynamo):
    """A caller that was told Retryable finds its request logged once."""
    clients = Clients(dynamo.settings.model_copy(update={"max_attempts": 1}))
    log = dynamo.client_of(clients, patience=0.0)
    Dropped(clients.client("dynamodb"), 1)
    with pytest.raises(Retryable):
        log.append([request("r1")])

    assert [False] == log.append([request("r1")])
    assert 1 == log.count(P, NOON)


def test_buffered_requests_outlive_lost_answers_and_outages(dynamo):
    """They are written once when DynamoDB answers again."""
    clients = Clients(dynamo.settings.model_copy(update={"max_attempts": 1}))
    log = dynamo.client_of(clients, patience=0.0)
    drop, outage = Dropped(clients.client("dynamodb"), 1), [2]

    def unreachable(request, **_):
        if outage[0]:
            outage[0] -= 1
            raise ReadTimeoutError(endpoint_url=request.url)

    before_send(clients.client("dynamodb"), WRITES, unreachable)
    log.append([request("r1"), request("r2")], durable=False)
    deadline = time.monotonic() + 10
    while drop.left:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    log.close()

    assert ["r1", "r2"] == ids(log)
    assert 2 == log.count(P, NOON)


def test_throttled_calls_are_tried_again(dynamo):
    """Reads and transactions are refused at first: nothing is lost, nothing is there twice."""
    log, dynamodb = alone(dynamo)
    calls, refused = itertools.count(), Counter()

    def throttle(request, **_):
        if next(calls) not in (0, 2):
            return None
        refused[request.headers["X-Amz-Target"]] += 1
        body = {"__type": "x#ProvisionedThroughputExceededException", "message": "slow down"}
        raw = type("Raw", (), {"stream": lambda self: [json.dumps(body).encode()]})()
        return AWSResponse(request.url, 400, {}, raw)

    before_send(dynamodb, "*", throttle)
    for i in range(2):
        assert [True] == log.append([request(f"r{i}", f"e{i}")])

    assert 2 == sum(refused.values())
    assert ["r0", "r1"] == ids(dynamo.client())
    assert 2 == dynamo.client().traffic(P, R)["champion"].entities


def test_items_that_dynamodb_leaves_out_are_asked_for_again(dynamo):
    """Under load it answers and deletes only a part of what it was asked."""
    log, dynamodb = alone(dynamo, read_timeout=21.0)
    log.append([request(f"r{i}", f"e{i}") for i in range(20)])

    def partly(parsed, **_):
        for table, items in parsed.get("Responses", {}).items():
            if len(items) > 1:
                left = [{n: one[n] for n in ("Subject", "Item")} for one in items[1:]]
                parsed["UnprocessedKeys"] = {table: {"Keys": left}}
                del items[1:]

    dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", partly)

    assert [False] * 20 == log.append([request(f"r{i}") for i in range(20)])
    assert request("r7", "e7") == log.find(P, "r7")


def test_transactions_that_conflict_are_tried_again(dynamo):
    """Another transaction was on the same item at the same moment."""
    log, dynamodb = alone(dynamo)
    log.append([request("r0")])
    left = [2]

    def conflict(request, **_):
        if not left[0]:
            return None
        left[0] -= 1
        reasons = [{"Code": "TransactionConflict"}, {"Code": "None"}]
        body = {"__type": "x#TransactionCanceledException", "CancellationReasons": reasons}
        raw = type("Raw", (), {"stream": lambda self: [json.dumps(body).encode()]})()
        return AWSResponse(request.url, 400, {}, raw)

    before_send(dynamodb, WRITES, conflict)

    assert [True] == log.append([request("r1")])
    assert ["r0", "r1"] == ids(log)
