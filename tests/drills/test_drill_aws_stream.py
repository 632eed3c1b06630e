"""Kinesis fails in part while records come in and consumers die; SNS is down for a while."""

from __future__ import annotations

import csv
import io
import random
import threading
from dataclasses import replace

import pytest
from drilling import DAYS, NAME
from emulators import credentials, fresh_settings

from ml_control.aws.alerts import SnsAlerts
from ml_control.aws.client import Clients
from ml_control.aws.stream import KinesisStream, putting
from ml_control.ports import StreamRecord
from ml_control.services.alerts import attend, raise_alert
from ml_control.serving.handlers.envelopes import message

COUNT, SEED = 240, 20261124
POISON = {31: b"{no json", 107: message({"unknown": 1}, entity_id="nobody")}
MARKERS = [
    ("endpoints.invoke", "after"),  # predicted, and nobody knows
    ("log.append", "after"),  # written, and not settled
    ("stream.settle", "before"),
    ("ml_control.aws.stream.settling:_move", "after"),  # in mid-settle
    ("stream.settle", "after"),
]


@pytest.fixture
def account(monkeypatch):
    """Settings of an account that this process and the victims use."""
    with credentials():
        settings = fresh_settings()
        monkeypatch.setenv("DRILL_KINESIS", settings.model_dump_json())
        yield settings


@pytest.fixture
def stream(account, served):
    """A stream of two shards, of which each request to put fails a third of the records."""
    clients = Clients(account)
    kinesis = clients.client("kinesis")
    kinesis.create_stream(StreamName=account.stream_name, ShardCount=2)
    chance, put = random.Random(SEED), kinesis.put_records

    def in_part(StreamName, Records):  # noqa: N803 - as boto3 calls them
        fates = [chance.random() < 0.35 for _ in Records]
        told = [{"ErrorCode": "InternalFailure", "ErrorMessage": "no"} for _ in Records]
        passed = [one for one, fails in zip(Records, fates, strict=True) if not fails]
        if passed:
            answer = iter(put(StreamName=StreamName, Records=passed)["Records"])
            told = [one if fails else next(answer) for one, fails in zip(told, fates, strict=True)]
        return {"FailedRecordCount": sum(fates), "Records": told}

    kinesis.put_records = in_part
    return KinesisStream(clients, served.registry.tables, 0.0, lease_seconds=1.0)


def datas(tables):
    """Messages of real records; two are poison."""
    rows = list(csv.DictReader(io.StringIO(tables[DAYS[0]].decode())))
    for row in rows:
        row.pop("diagnosis")
    return [POISON.get(i) or message(rows[i % len(rows)]) for i in range(COUNT)]


def test_partial_failures_under_load_with_killed_consumers(served, tables, stream, monkeypatch):
    """Every record is answered once, under its own request id, in the order of its key; poison is
    parked alone. The seed of the failures is in the message.
    """
    monkeypatch.setattr(putting, "_FIRST_WAIT", 0.002)
    home, sent, sequences = served, datas(tables), []

    def load():
        for begin in range(0, COUNT, 12):
            batch = [
                StreamRecord(NAME, f"patient-{i % 17}", sent[i])
                for i in range(begin, min(begin + 12, COUNT))
            ]
            sequences.extend(stream.put(batch))

    loader = threading.Thread(target=load)
    loader.start()
    for at, when in MARKERS:
        home.stopped([["consume", 25]], at, when).kill()
    loader.join(60)
    while home.do([["consume", 100]])[0][0]:
        pass

    logged = [one.prediction for one in home.platform.log.after(NAME, 0, 10_000)]
    parked = {one.record.sequence: one.reason for one in stream.parked(NAME)}
    state = stream.state(NAME)
    said = f"seed {SEED}"
    assert COUNT == len(set(sequences)), said
    assert {sequences[i] for i in POISON} == set(parked), said
    assert all(reason.startswith("BadObject: ") for reason in parked.values()), said
    wanted = [i for i in range(COUNT) if i not in POISON]
    ids = [one.request_id for one in logged]
    assert sorted(f"{NAME}-{sequences[i]}" for i in wanted) == sorted(ids), said
    assert all(not one.failed and "a" == one.served for one in logged), said
    places = {f"{NAME}-{number}": place for place, number in enumerate(sequences)}
    for key in range(17):
        own = [places[id] for id in ids if places[id] % 17 == key]
        assert sorted(own) == own, said
    assert (0, 0, 2) == (state.waiting, state.failing, state.parked), said
    assert ["stream-parked"] == [one.kind for one in home.registry.alerts.open(NAME)]


def test_what_sns_did_not_take_comes_again(empty, account, monkeypatch, tmp_path):
    """While it is down the ticks go on, with growing waits; then each trouble is told once."""
    clients = Clients(account)
    sns, sqs = clients.client("sns"), clients.client("sqs")
    topic = sns.create_topic(Name=account.name("alerts"))["TopicArn"]
    queue = sqs.create_queue(QueueName=account.name("told"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
    up = account.model_copy(update={"topic_arn": topic, "max_attempts": 1})
    down = up.model_copy(
        update={"endpoint_urls": {**up.endpoint_urls, "sns": "http://127.0.0.1:9"}}
    )
    file, now = tmp_path / "alerts.jsonl", [1_000_000.0]
    monkeypatch.setattr(empty.registry, "clock", lambda: now[0])
    monkeypatch.setattr(empty.registry.alerts, "_clock", lambda: now[0])
    broken = replace(empty.platform, alerts=SnsAlerts(Clients(down), file))
    whole = replace(empty.platform, alerts=SnsAlerts(Clients(up), file))
    for _ in range(2):
        raise_alert(broken, NAME, "endpoint", "tumours-a", "it is down", "look at it")

    assert [0, 0] == [attend(broken, NAME), attend(broken, NAME)]
    now[0] += 4
    assert 0 == attend(whole, NAME), "it is not time yet"
    now[0] += 100
    assert [1, 0] == [attend(whole, NAME), attend(whole, NAME)]

    told = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    assert 1 == len(told)
    assert "it is down" in told[0]["Body"]
    assert not file.exists()
