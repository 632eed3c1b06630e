"""Writers of the prediction log in DynamoDB killed at any moment: what was told is there once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from aws_log_writer import NAME
from drilling import until
from emulators import credentials, fresh_settings

from ml_control.aws.client import Clients
from ml_control.aws.prediction_log import DynamoPredictionLog
from ml_control.testing.account import make_account

WRITER = Path(__file__).with_name("aws_log_writer.py")
SPAN = 2_000  # more requests than a writer gets to before it is killed


@pytest.fixture
def settings():
    """An account of the drill's own."""
    with credentials():
        yield make_account(fresh_settings())


def start(settings, first, last, told):
    arguments = [settings.model_dump_json(), str(first), str(last), "4", str(told)]
    return subprocess.Popen([sys.executable, str(WRITER), *arguments])


def noted(told):
    """What was acknowledged: whole lines alone."""
    lines = told.read_text().splitlines(keepends=True) if told.exists() else []
    return [line.strip() for line in lines if line.endswith("\n")]


def check(log, acknowledged):
    """Everything acknowledged is there, nothing twice, nothing missing between, all counted."""
    logged = log.after(NAME, 0, 100_000)
    ids = Counter(one.prediction.request_id for one in logged)
    joined = log.joined(NAME, 0, 100_000)
    outcomes = Counter(f"o{one.request_id[1:]}" for one in joined)

    assert {1} == set(ids.values())
    assert set(outcomes.values()) <= {1}
    assert set(acknowledged) <= ids.keys() | outcomes.keys()
    for found in ([one.offset for one in logged], [one.offset for one in joined]):
        assert found == [*range(found[0], found[0] + len(found))]
    assert len(logged) == log.count(NAME, 0.0)
    arms = log.traffic(NAME, "r")
    for name, challenger in (("champion", False), ("challenger", True)):
        own = [one.prediction for one in logged if one.prediction.challenger == challenger]
        assert len(own) == arms[name].requests == sum(arms[name].latencies)
        assert len({one.entity_id for one in own}) == arms[name].entities
    firsts = Counter(one.entity_id for one in joined if one.first)
    assert dict.fromkeys({one.entity_id for one in joined}, 1) == firsts
    return ids


def test_writers_killed_at_random_points(settings, tmp_path):
    """Two write at once; one after the other is killed, and what it had not been told of is
    brought again by the next.
    """
    seeded, told = random.Random(1), tmp_path / "told"
    other = start(settings, SPAN, 2 * SPAN, tmp_path / "other")
    log = DynamoPredictionLog(Clients(settings))
    try:
        for _ in range(3):
            before = len(noted(told))
            victim = start(settings, 0, SPAN, told)
            try:
                until(lambda before=before: len(noted(told)) > before + 20, "acknowledged ones")
                time.sleep(seeded.uniform(0.0, 0.3))
            finally:
                victim.kill()
                victim.wait()
    finally:
        other.kill()
        other.wait()
    acknowledged = noted(told) + noted(tmp_path / "other")
    ids = check(log, acknowledged)

    assert len(ids) > 40
    last = max(int(id[1:]) for id in ids if int(id[1:]) < SPAN) + 1
    assert 0 == start(settings, 0, last, told).wait(60)
    assert {f"r{number}" for number in range(last)} <= set(check(log, noted(told)))
    log.close()
