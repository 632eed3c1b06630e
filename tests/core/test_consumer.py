"""The consumer: each pipeline in turn, refusals said once, the log's word on what comes again."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ml_control.errors import NotProven, Retryable
from ml_control.ports import Prediction
from ml_control.services.traffic import consumer
from ml_control.services.traffic.consumer import Consumer, _write
from ml_control.serving.handlers.records import Batch


@pytest.fixture
def loop(monkeypatch):
    """A consumer of two pipelines whose batches are scripted; what it said and consumed."""
    found = SimpleNamespace(said=[], asked=[], script={"a": [], "b": []})

    def consume_once(platform, pipeline, snapshots):
        found.asked.append(pipeline.name)
        result = found.script[pipeline.name].pop(0) if found.script[pipeline.name] else 0
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(consumer, "consume_once", consume_once)
    pipelines = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
    found.consumer = Consumer(SimpleNamespace(), lambda: pipelines, found.said.append)
    return found


def test_each_round_takes_a_batch_of_each_pipeline(loop):
    """One with much to do does not keep the others waiting."""
    loop.script = {"a": [500, 500], "b": [3]}

    assert [503, 500, 0] == [loop.consumer.round() for _ in range(3)]
    assert ["a", "b"] * 3 == loop.asked


@pytest.mark.parametrize("error", [NotProven("a", "no model is live"), OSError("disk")])
def test_a_refusal_is_said_once_and_tried_later_while_the_others_go_on(loop, error, monkeypatch):
    """Growing waits, and a word when it works again."""
    now = [100.0]
    monkeypatch.setattr(consumer.time, "monotonic", lambda: now[0])
    loop.script = {"a": [error, error, 7], "b": [1, 1, 1, 1, 1]}

    loop.consumer.round()
    loop.consumer.round()  # too early for a
    assert ["a", "b", "b"] == loop.asked
    for _ in range(2):
        now[0] += 1.0
        loop.consumer.round()

    assert 2 == len(loop.said)
    assert "stream of a" in loop.said[0]
    assert "stream of a: consumed again" == loop.said[1]


def test_it_stops_when_it_is_told_to(loop):
    """Also while nothing waits."""
    stop = threading.Event()
    thread = threading.Thread(target=loop.consumer.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(10)

    assert not thread.is_alive()


def prediction(**changes):
    body = Prediction(
        "a", "r", "e", "a-1", "a", challenger=False, share=0.0, served="a", model_version="m",
        at=1.0, latency=0.1, rows=1, records=b"[1]",
    )  # fmt: skip
    return replace(body, **changes)


class Log:
    """Knows one request."""

    def __init__(self, known=None):
        self.known = {} if known is None else {known.request_id: known}

    def append(self, predictions, *, durable):
        assert durable
        told = []
        for one in predictions:
            told.append(one.request_id not in self.known)
            self.known.setdefault(one.request_id, one)
        return told

    def find(self, pipeline, request_id):
        return self.known.get(request_id)


def test_a_redelivered_record_is_done():
    """It was written before the crash: nothing is written and nothing is wrong."""
    batch = Batch([1], [prediction(at=5.0)])
    _write(SimpleNamespace(log=Log(prediction())), batch)

    assert ([1], {}) == (batch.done, batch.poison)


@pytest.mark.parametrize("changes", [{"records": b"[2]"}, {"entity_id": "other"}, {"rows": 2}])
def test_a_request_id_that_was_used_with_other_content_is_no_redelivery(changes):
    """Its record would be skipped silently; it is parked with a Conflict instead."""
    batch = Batch([1], [prediction(**changes)])
    _write(SimpleNamespace(log=Log(prediction())), batch)

    assert [] == batch.done
    assert batch.poison[1].startswith("Conflict: was answered before")


def test_two_records_of_a_batch_with_one_request_id():
    """The first is answered; the second only passes if it is the same."""
    batch = Batch([1, 2, 3], [prediction(), prediction(), prediction(records=b"[9]")])
    _write(SimpleNamespace(log=Log()), batch)

    assert ([1, 2], [3]) == (batch.done, list(batch.poison))


def test_an_unwritable_log_settles_nothing():
    """``Retryable`` comes out before anything is settled."""

    def refuse(*_, **__):
        raise Retryable("log", "no space", "free some")

    with pytest.raises(Retryable):
        _write(SimpleNamespace(log=SimpleNamespace(append=refuse)), Batch([1], [prediction()]))
