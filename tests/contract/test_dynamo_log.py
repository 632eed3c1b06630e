"""What is special to the prediction log in DynamoDB: lost answers, contention, sizes, expiry."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError
from emulators import credentials
from log_places import DynamoLogs
from logged import NOON, P, R, all_joined, request, told

from ml_control.aws.client import Clients
from ml_control.aws.schema import EXPIRES
from ml_control.errors import BadObject, PlatformFailed, Retryable, Unknown

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


@pytest.fixture
def place():
    """A table of its own."""
    with credentials():
        place = DynamoLogs()
        yield place
        place.end()


def alone(place, **changes):
    """A client with connections of its own, which a test may disturb."""
    clients = Clients(place.settings.model_copy(update=changes))
    return place.client_of(clients), clients.client("dynamodb")


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


def ids(log):
    return [one.prediction.request_id for one in log.after(P, 0, 10_000)]


def test_two_processes_log_into_one_pipeline_at_once(place):
    """Shared ids are new to one of them; offsets have no gap, and a reader that follows meanwhile
    gets every request in order.
    """
    rounds, done, followed = 10, threading.Event(), []
    program = PROCESS.format(rounds=rounds, paths=[str(CONTRACT)])
    arguments = [sys.executable, "-c", program, place.settings.model_dump_json()]
    writers = [
        subprocess.Popen(
            [*arguments, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    log = place.client()

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
def test_a_commit_whose_answer_was_lost_is_known_as_our_own(place, others):
    """It was done, the caller saw a timeout: tried again it is told as new, and logged once; also
    when others wrote meanwhile, more than the head remembers.
    """
    log, dynamodb = alone(place, max_attempts=1)
    other = place.client()
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


def test_a_commit_that_is_done_late_is_known_as_our_own(place):
    """The caller saw a timeout, looked, found nothing, and drafted anew: then the first came."""
    log, dynamodb = alone(place, max_attempts=1)
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
    assert ["r0", "r1", "r2"] == ids(place.client())
    assert 3 == log.count(P, NOON)


async def awaited(future):
    return await asyncio.wrap_future(future)


def test_botocores_own_retry_of_a_lost_answer_changes_nothing(place):
    """It sends the same token again."""
    log, dynamodb = alone(place, max_attempts=3)
    drop = Dropped(dynamodb, 1)

    assert [True] == log.append([request("r1")])
    assert 0 == drop.left
    assert ["r1"] == ids(place.client())


def test_what_was_given_up_but_done_is_known_when_it_is_brought_again(place):
    """A caller that was told Retryable finds its request logged once."""
    clients = Clients(place.settings.model_copy(update={"max_attempts": 1}))
    log = place.client_of(clients, patience=0.0)
    Dropped(clients.client("dynamodb"), 1)
    with pytest.raises(Retryable):
        log.append([request("r1")])

    assert [False] == log.append([request("r1")])
    assert 1 == log.count(P, NOON)


def test_buffered_requests_outlive_lost_answers_and_outages(place):
    """They are written once when DynamoDB answers again."""
    clients = Clients(place.settings.model_copy(update={"max_attempts": 1}))
    log = place.client_of(clients, patience=0.0)
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


def test_throttled_calls_are_tried_again(place):
    """Reads and transactions are refused at first: nothing is lost, nothing is there twice."""
    log, dynamodb = alone(place)
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
    assert ["r0", "r1"] == ids(place.client())
    assert 2 == place.client().traffic(P, R)["champion"].entities


def test_items_that_dynamodb_leaves_out_are_asked_for_again(place):
    """Under load it answers and deletes only a part of what it was asked."""
    log, dynamodb = alone(place, read_timeout=21.0)
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


def test_transactions_that_conflict_are_tried_again(place):
    """Another transaction was on the same item at the same moment."""
    log, dynamodb = alone(place)
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


def test_a_request_id_is_known_until_its_items_expire(place):
    """DynamoDB removes what expired only days later: readers and writers look at the time."""
    log = place.client()
    log.append([request("r1")])
    log.tell(P, "r1", [told()])
    (item,) = [one for one in place.items() if "Commit" in one and EXPIRES in one]
    assert time.time() + 15 * 86400 < float(item[EXPIRES]["N"]) < time.time() + 17 * 86400
    item[EXPIRES] = {"N": str(int(time.time()) - 10)}
    place.dynamodb.put_item(TableName=place.table, Item=item)

    assert log.find(P, "r1") is None
    assert ["waiting"] == log.tell(P, "r1", [told("lily")])
    assert [True] == place.client().append([request("r1")])
    assert ["r1", "r1"] == ids(log)


def test_nothing_that_a_rollout_or_the_lake_needs_ever_expires(place):
    """Only what is noted of request ids, the minutes' counts, and what was set aside."""
    log = place.client()
    log.append([request("r1"), request("r2", at=time.time())])
    log.tell(P, "r1", [told()])
    log.tell(P, "never", [told()])
    expiring = {
        item["Subject"]["S"].split("#")[2] if "#id#" in item["Subject"]["S"]
        else item["Item"]["S"].partition("#")[0]
        for item in place.items() if EXPIRES in item
    }  # fmt: skip

    assert {"id", "minute", "hour"} == expiring
    kept = [item for item in place.items() if EXPIRES not in item]
    assert any("Waiting" in item and "#id#" in item["Subject"]["S"] for item in kept)


def noise(size, seed=1):
    """Text that hardly gets smaller."""
    return json.dumps([{"x": random.Random(seed).randbytes(size // 2).hex()}]).encode()


def test_large_requests_are_kept_in_parts(place):
    """Records and answers of some megabytes come back whole; an outcome of the last is joined."""
    log, rows = place.client(), 60_000
    scores = random.Random(3)
    answers = json.dumps([{"label": "a", "score": scores.random()} for _ in range(rows)]).encode()
    large = request("r1", records=noise(1_500_000), answers=answers, rows=rows)
    log.append([large, request("r2")])

    assert large == place.client().find(P, "r1")
    assert [large, request("r2")] == [one.prediction for one in log.after(P, 0, 5)]
    assert ["r2", "r1"] == [one.request_id for one in log.newest(P, 2)]
    last = [told(float(i), index) for i, index in enumerate((0, 4_000, rows - 1))]
    assert ["joined"] * 3 == log.tell(P, "r1", last)
    assert ["known"] * 3 == place.client().tell(P, "r1", last)
    assert [0, 4_000, rows - 1] == [one.index for one in all_joined(log)]
    assert all(len(json.dumps(one, default=repr)) < 1_600_000 for one in place.items())
    assert max(len(one["Blob"]["B"]) for one in place.items() if "Blob" in one) < 400_000


def test_records_that_no_transaction_takes_are_not_captured(place):
    """The request is logged with its answers all the same."""
    log = place.client()

    assert [True] == log.append([request("r1", records=noise(9_000_000))])
    assert request("r1", records=None) == log.find(P, "r1")


def test_answers_that_no_transaction_takes_are_refused_by_name(place):
    """Nothing of it is logged, and others in the call's company are."""
    log = place.client()
    futures = [log.submit([request("r1", answers=noise(9_000_000))]), log.submit([request("r2")])]
    with pytest.raises(BadObject, match="answers are") as refused:
        futures[0].result()

    assert "fewer records" in refused.value.next
    assert [True] == futures[1].result()
    assert ["r2"] == ids(log)
    assert 1 == log.count(P, NOON)


def test_many_outcomes_that_wait_are_joined_or_set_aside_together(place):
    """More than one item holds; those beyond the records are counted."""
    log = place.client()
    outcomes = [told("rose", index) for index in (0, 1, 2, 4_000, 9_999)]

    assert ["waiting"] * 5 == log.tell(P, "r1", outcomes)
    assert ["known"] * 5 == place.client().tell(P, "r1", outcomes)
    assert [True] == place.client().append([request("r1")])
    assert [0, 1] == [one.index for one in all_joined(log)]
    assert (0, 3) == (log.state(P).waiting, log.state(P).unjoinable)


def test_pruning_deletes_items_and_gives_up_step_by_step(place):
    """Groups, entities and waiting outcomes of many commits go; what the head says is exact."""
    log = place.client(days=1e-9)
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
            for item in place.items() if item["Subject"]["S"] != f"log#{P}"}  # fmt: skip
    assert {"id"} == left
    assert 180 == log.traffic(P, R)["champion"].entities
    log.append([request("again", "e0-0")])
    assert 181 == place.client().traffic(P, R)["champion"].entities


def test_a_group_that_was_removed_is_unknown(place):
    """Nobody can tell what was in it: a person restores the table."""
    log = place.client(patience=0.5)
    log.append([request("r1")])
    log.append([request("r2")])
    (first, *_) = sorted(
        (item for item in place.items() if item["Subject"]["S"].endswith("#requests")),
        key=lambda item: item["Item"]["S"],
    )
    key = {name: first[name] for name in ("Subject", "Item")}
    place.dynamodb.delete_item(TableName=place.table, Key=key)
    for use in (
        lambda: log.after(P, 0, 10),
        lambda: log.find(P, "r1"),
        lambda: log.tell(P, "r1", [told()]),
    ):
        with pytest.raises(Unknown) as refused:
            use()
        assert "restore the table" in refused.value.next
    assert request("r2") == log.find(P, "r2")


def test_a_group_that_is_seen_late_is_waited_for(place):
    """A transaction's items may be seen one after the other: a reader skips nothing for that."""
    log = place.client()
    log.append([request("r1")])
    log.append([request("r2")])
    first = min(
        (item for item in place.items() if item["Subject"]["S"].endswith("#requests")),
        key=lambda item: item["Item"]["S"],
    )
    key = {name: first[name] for name in ("Subject", "Item")}
    place.dynamodb.delete_item(TableName=place.table, Key=key)
    late = threading.Timer(0.1, lambda: place.dynamodb.put_item(TableName=place.table, Item=first))
    late.start()

    assert ["r1", "r2"] == ids(log)
    late.join()


def test_a_log_of_another_form_is_refused(place):
    """Its own version reads it; nothing is changed."""
    log = place.client()
    log.append([request("r1")])
    (head,) = [item for item in place.items() if "head" == item["Item"]["S"]]
    place.dynamodb.put_item(TableName=place.table, Item={**head, "Form": {"N": "2"}})
    for use in (lambda: log.state(P), lambda: place.client().append([request("r2")])):
        with pytest.raises(Unknown, match="form 2, not 1"):
            use()


def test_a_table_that_is_not_there_is_told_by_name(place):
    """Nothing waits for it in vain."""
    clients = Clients(place.settings.model_copy(update={"tables": {"control-ledger": "absent"}}))
    log = place.client_of(clients)
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
