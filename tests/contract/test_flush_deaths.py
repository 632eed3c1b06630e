"""A flush that dies at any point, over each platform's log."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from emulators import credentials
from flushed import NOON, Clock, P, ids, pipeline, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_places import DynamoLogs

from ml_control.platform import open_platform
from ml_control.ports import Outcome
from ml_control.services.traffic.flush import flush
from ml_control.services.traffic.log_files import read_outcomes
from ml_control.settings import load_settings


class Died(Exception):
    """The process ended here."""


STEPS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from("-clpa")), max_size=6)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_a_flush_that_dies_anywhere_is_finished_exactly_once(tmp_path_factory, steps):
    """Before a file, between two, before the histograms are added, or after: the next flush leaves
    each row once in the lake and counts each once, also what was logged meanwhile.
    """
    folder = tmp_path_factory.mktemp("home")
    flushed_with_deaths(open_platform(load_settings(home=folder, pipelines=folder)), steps)


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_a_flush_that_dies_is_finished_also_over_dynamodb(tmp_path_factory, steps):
    """The same with the log in DynamoDB."""
    folder = tmp_path_factory.mktemp("home")
    opened = open_platform(load_settings(home=folder, pipelines=folder))
    opened.log.close()
    with credentials():
        flushed_with_deaths(replace(opened, log=DynamoLogs().client()), steps)


def flushed_with_deaths(opened, steps):
    opened.registry.clock = Clock()
    logged = 0
    for count, where in steps:
        batch = [request(f"r{logged + i}", NOON + 3600 * (i % 2)) for i in range(count)]
        logged += count
        opened.log.append(batch)
        opened.log.tell(P, batch[0].request_id, [Outcome(0, "rose", NOON)])
        with pytest.MonkeyPatch.context() as patched, suppress(Died):
            die_at(patched, opened, where)
            flush(opened, [pipeline()], force=True)
    flush(opened, [pipeline()], force=True)

    assert [f"r{i}" for i in range(logged)] == ids(opened)
    assert len(steps) == read_outcomes(opened, P).collect().height
    live = opened.registry.live.merged(P, "m1", 0.0, NOON + 7200)
    assert logged == (live["rows"] if live else 0)
    assert logged == (live["prediction"]["score"]["count"] if live else 0)
    opened.log.close()
    opened.registry.tables.close()


def die_at(patched, opened, where):
    """Die before or after the call that the letter stands for."""

    def dies(original, after):
        def call(*arguments):
            if after:
                original(*arguments)
            raise Died

        return call

    spots = {
        "c": (opened.lake, "create", False),
        "l": (opened.lake, "create", True),
        "p": (opened.registry.live, "put", True),
        "a": (opened.registry.live, "add", False),
    }
    if where in spots:
        owner, name, after = spots[where]
        patched.setattr(owner, name, dies(getattr(owner, name), after))
