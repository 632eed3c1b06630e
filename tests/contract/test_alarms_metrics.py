"""Numbers that go to CloudWatch, and alarms that come back, on an emulator."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError
from emulators import credentials, fresh_settings

from ml_control.aws.alarms import CloudWatchAlarms
from ml_control.aws.client import Clients
from ml_control.aws.metrics import CloudWatchMetrics
from ml_control.errors import Retryable
from ml_control.ports import Prediction, Sample
from ml_control.services.reading.emitting import emit_metrics

P = "tumours"


@pytest.fixture
def clients():
    """An account without any part: logs and alarms are made by whoever needs them."""
    with credentials():
        yield Clients(fresh_settings())


def documents(clients, group):
    """What lies in a log group, in the order of its streams."""
    logs, found = clients.client("logs"), []
    for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
        told = logs.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
        )
        found += [(one["timestamp"], json.loads(one["message"])) for one in told["events"]]
    return found


def test_samples_are_documents_of_the_embedded_metric_format(clients):
    """By time and dimensions, in the order of times; no number that is none; two clients at once,
    each with a stream of its own; the group is made with its retention and tags.
    """
    now = float(round(time.time()))
    one, other = CloudWatchMetrics(clients), CloudWatchMetrics(clients)
    shop = {"Pipeline": "shop", "Variant": "a", "Empty": ""}
    one.emit(
        [
            Sample("Requests", 3.0, "Count", now, shop),
            Sample("Latency", 12.5, "Milliseconds", now, shop),
            Sample("Requests", 2.0, "Count", now - 60, shop),
            Sample("Requests", 9.0, "Count", now, {"Pipeline": "shop", "Variant": "b"}),
            Sample("Bad", math.nan, at=now),
            Sample("Worse", math.inf, at=now),
        ]
    )
    other.emit([Sample("Requests", 1.0, "Count", now, shop)])
    one.emit([])

    group = one.group
    settings = clients.settings
    assert f"/ml-control/{settings.project}-{settings.environment}/metrics" == group
    found = documents(clients, group)
    assert 4 == len(found)
    values = [(d.get("Variant"), d["Requests"]) for _, d in found]
    assert sorted([("a", 2.0), ("a", 3.0), ("b", 9.0), ("a", 1.0)]) == sorted(values)
    whole = next(d for _, d in found if d["Requests"] == 3.0)
    assert 12.5 == whole["Latency"]
    assert "Bad" not in json.dumps(found)
    told = whole["_aws"]
    assert round(now * 1000) == told["Timestamp"]
    (directive,) = told["CloudWatchMetrics"]
    assert [["Pipeline", "Variant"]] == directive["Dimensions"]
    assert settings.metrics_namespace == directive["Namespace"]
    units = {one["Name"]: one["Unit"] for one in directive["Metrics"]}
    assert {"Requests": "Count", "Latency": "Milliseconds"} == units
    (made,) = clients.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert 30 == made["retentionInDays"]


def test_many_samples_keep_within_what_one_document_and_one_request_take(clients):
    """100 metrics a document; a name that comes again has a document of its own."""
    metrics, now = CloudWatchMetrics(clients), float(round(time.time()))
    metrics.emit([Sample(f"M{i}", float(i), at=now) for i in range(250)])
    metrics.emit([Sample("Same", float(i), at=now) for i in range(3)])

    found = [d for _, d in documents(clients, metrics.group)]
    counts = [len(d["_aws"]["CloudWatchMetrics"][0]["Metrics"]) for d in found]
    assert [1, 1, 1, 50, 100, 100] == sorted(counts)
    assert {float(i) for i in range(250)} == {d[f"M{i}"] for i in range(250) for d in found
                                              if f"M{i}" in d}  # fmt: skip


def test_a_group_that_was_removed_is_made_again(clients):
    """A person cleaned up: the next minute's numbers arrive."""
    metrics = CloudWatchMetrics(clients)
    metrics.emit([Sample("A", 1.0, at=time.time())])
    clients.client("logs").delete_log_group(logGroupName=metrics.group)

    metrics.emit([Sample("B", 1.0, at=time.time())])

    assert ["B"] == [k for _, d in documents(clients, metrics.group) for k in d if k != "_aws"]


def put_alarm(clients, name, state=None):
    cloudwatch = clients.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name, MetricName="Errors", Namespace="N", Period=60, EvaluationPeriods=1,
        Threshold=1.0, ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
    )  # fmt: skip
    if state:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=f"it is {state}")


def test_alarms_are_read_by_name(clients):
    """Each that was asked for, in order, once; absent or without data is missing, never ok."""
    prefix = clients.settings.name("alarm")
    for name, state in (("ok", "OK"), ("bad", "ALARM"), ("thin", "INSUFFICIENT_DATA")):
        put_alarm(clients, f"{prefix}-{name}", state)
    many = [f"{prefix}-{i:03d}" for i in range(230)]
    put_alarm(clients, many[205], "ALARM")
    names = [f"{prefix}-{name}" for name in ("ok", "bad", "thin", "absent", "bad")]

    found = CloudWatchAlarms(clients).read([*names, *many])

    assert sorted({*names, *many}) == [one.name for one in found]
    states = {one.name.removeprefix(f"{prefix}-"): one for one in found}
    assert ["ok", "firing", "missing", "missing", "firing"] == [
        states[name].state for name in ("ok", "bad", "thin", "absent", "205")
    ]
    assert "it is ALARM" == states["bad"].reason
    assert abs(time.time() - states["bad"].since) < 3600
    assert [] == CloudWatchAlarms(clients).read([])


class Kept:
    """Metrics that keep what they are given, or refuse it."""

    def __init__(self):
        self.minutes, self.down = [], False

    def emit(self, samples):
        if self.down:
            raise Retryable("metrics", "throttled", "later")
        self.minutes.append(
            {(s.name, *(v for _, v in sorted(s.dimensions.items()))): s.value for s in samples}
        )


def log(platform, count, latency=0.02):
    rollout = platform.registry.rollouts.get(P)
    for number in range(count):
        name = f"{rollout.id}-{latency}-{number}-{time.time()}"
        platform.log.append([Prediction(
            pipeline=P, request_id=name, entity_id=name, rollout_id=rollout.id, assigned="a",
            challenger=False, share=rollout.share, served="a", model_version="m", at=time.time(),
            latency=latency, rows=1, answers=b"[]",
        )])  # fmt: skip


def test_what_metrics_show_is_given_once_a_minute(home, monkeypatch):
    """Gauges as they are, counters as what was added since; of two processes one gives them; what
    could not be given comes with the next minute.
    """
    kept, now = Kept(), [1_000_000.0]
    platform, pipeline = replace(home.platform, metrics=kept), home.pipeline()
    monkeypatch.setattr(platform.registry, "clock", lambda: now[0])
    log(platform, 5)
    assert emit_metrics(platform, pipeline) > 0
    assert 0 == emit_metrics(platform, pipeline)
    log(platform, 3)
    now[0] += 30
    assert 0 == emit_metrics(replace(platform), pipeline)
    now[0] += 31
    emit_metrics(platform, pipeline)
    kept.down = True
    log(platform, 4, latency=3.0)
    now[0] += 61
    with pytest.raises(Retryable):
        emit_metrics(platform, pipeline)
    kept.down = False
    now[0] += 61
    emit_metrics(platform, pipeline)

    first, second, third = kept.minutes
    assert "Requests" not in {key[0] for key in first}
    assert (0.0, 0.0) == (first["Events", "pending"], first["Events", "parked"])
    assert 1.0 == first["RolloutState", "idle"]
    assert 0.0 == first["RolloutPhase", "canary"]
    assert 0.0 == first["AlertsOpenInAll",]
    requests = [sum(v for k, v in m.items() if k[0] == "Requests") for m in (second, third)]
    assert [3.0, 4.0] == requests
    assert [20.0, 3000.0] == [
        next(v for k, v in m.items() if k[0] == "RequestLatencyP99") for m in (second, third)
    ]
    assert 0 == emit_metrics(replace(platform, metrics=None), pipeline)


def test_throttled_metrics_come_again(clients):
    """CloudWatch's word is a typed error that the sensor says and outlives."""
    metrics = CloudWatchMetrics(clients)
    metrics.emit([Sample("A", 1.0, at=time.time())])

    def refuse(**_):
        raise ClientError({"Error": {"Code": "ThrottlingException"}}, "PutLogEvents")

    clients.client("logs").meta.events.register("before-call.logs.PutLogEvents", refuse)

    with pytest.raises(Retryable):
        metrics.emit([Sample("A", 1.0, at=time.time())])
