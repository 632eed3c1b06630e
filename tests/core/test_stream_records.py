"""A stream's batch: decoded strictly, dealt like requests, asked once a variant, exact failures."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop_features import FEATURES

from ml_control.core.features import FeatureSpec
from ml_control.core.records import Rollout, Variant
from ml_control.errors import BadObject, NotProven, Retryable
from ml_control.ports import Reply, StreamRecord
from ml_control.serving.columns import ColumnCodec
from ml_control.serving.handlers.envelopes import message
from ml_control.serving.handlers.inference import assign
from ml_control.serving.handlers.records import answer_records
from ml_control.serving.handlers.row_codec import PLAIN
from ml_control.serving.handlers.steps import Served, Snapshot
from ml_control.serving.recordio import parse_recordio
from ml_control.spec import Log

NAME = "shop"
GOOD = {"age": 30, "income": 1.5, "plan": "a", "city": "y"}


def rollout(**changes):
    entry = {
        name: Variant(
            endpoint=f"{NAME}-{name}", model_version=name * 8, verdict="v", proven_live_at=1.0
        )
        for name in "ab"
    }  # fmt: skip
    body = {
        "pipeline": NAME,
        "id": f"{NAME}-3",
        "champion": "a" * 8,
        "variants": entry,
        "weights": {"a": 0.5, "b": 0.5},
        "challenger": "b",
        "state": "in_progress",
        "phase": "experiment",
    }
    return Rollout.model_validate({**body, **changes})


def snapshot(log=None, usable="ab", features=FEATURES, **changes):
    variants = {
        name: Served(
            name, f"{NAME}-{name}", name * 8, f"archive-{name}",
            features if name in usable else None, "" if name in usable else "not proven",
        )
        for name in "ab"
    }  # fmt: skip
    return Snapshot(NAME, features.task, log or Log(), rollout(**changes), variants)


def records(*bodies, keys=None, first=100):
    found = []
    for place, body in enumerate(bodies):
        data = body if isinstance(body, bytes) else message(body)
        key = keys[place] if keys else f"user-{place}"
        found.append(StreamRecord(NAME, key, data, first + place, 5.0))
    return found


class Server:
    """Answers each row with a number made of it; refuses what it is told to; counts its calls."""

    def __init__(self, down=(), refuses=lambda variant, row: False, status=500):
        self.down, self.refuses, self.status = set(down), refuses, status
        self.calls = []

    def __call__(self, served, body):
        rows = parse_recordio(body, served.features.width)
        self.calls.append((served.variant, len(rows)))
        if served.variant in self.down:
            raise Retryable(f"endpoint {served.endpoint}", "is not serving", "start it")
        if any(self.refuses(served.variant, row) for row in rows):
            return Reply(self.status, b"no")
        scores = 1 / (1 + np.exp(-np.nan_to_num(rows, nan=-1.0, posinf=9).sum(axis=1) % 7 + 3))
        return Reply(200, b"\n".join(b"%r" % float(one) for one in scores), "text/csv")


def run(found, view=None, server=None, codec=PLAIN):
    return answer_records(found, view or snapshot(), server or Server(), codec, lambda: 9.0)


def test_each_record_is_answered_under_its_own_id_and_each_variant_asked_once():
    """A derived id is the same at every delivery; entity and id of the message go before."""
    found = records(
        GOOD,
        message(GOOD, entity_id="me"),
        message(GOOD, request_id="mine"),
        *[{"age": age} for age in range(40)],
    )
    server = Server()

    batch = run(found, server=server)

    assert [record.sequence for record in found] == sorted(batch.done)
    by_id = {p.request_id: p for p in batch.predictions}
    assert len(found) == len(by_id)
    assert "user-0" == by_id[f"{NAME}-100"].entity_id
    assert "me" == by_id[f"{NAME}-101"].entity_id
    assert "user-2" == by_id["mine"].entity_id
    assert {"a", "b"} == {variant for variant, _ in server.calls}
    assert 2 == len(server.calls)
    assert 43 == sum(rows for _, rows in server.calls)
    assert ({}, {}) == (batch.failed, batch.poison)
    again = run(found)
    assert {p.request_id: p.answers for p in again.predictions} == {
        p.request_id: p.answers for p in batch.predictions
    }


@settings(max_examples=60)
@given(
    entities=st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1,
                              max_size=9), min_size=1, max_size=30),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]),
    challenger=st.sampled_from([None, "b"]),
)  # fmt: skip
def test_records_are_dealt_as_requests_are(entities, share, challenger):
    """The same entity goes to the same variant through the stream and through the gateway."""
    view = snapshot(weights={"a": 1.0 - share, "b": share}, challenger=challenger)
    batch = run(records(*[GOOD] * len(entities), keys=entities), view)

    assert len(entities) == len(batch.done)
    for prediction in batch.predictions:
        wanted = assign(view.rollout, prediction.entity_id)
        assert wanted.variant == prediction.assigned == prediction.served
        assert (wanted.challenger, wanted.share) == (prediction.challenger, prediction.share)


def test_what_is_logged_is_what_one_request_would_log():
    """Answers as label and score, the record as it was written, one row, the batch's time."""
    (prediction,) = run(records(GOOD), snapshot(weights={"a": 1.0, "b": 0.0})).predictions
    answer = orjson.loads(prediction.answers)

    assert [{"label", "score"}] == [set(one) for one in answer]
    assert ("yes" if answer[0]["score"] >= 0.5 else "no") == answer[0]["label"]
    assert [GOOD] == orjson.loads(prediction.records)
    assert (1, 9.0, False, "") == (
        prediction.rows, prediction.at, prediction.failed, prediction.failure,
    )  # fmt: skip
    assert prediction.latency > 0
    assert ("a" * 8, f"{NAME}-3") == (prediction.model_version, prediction.rollout_id)
    assert hash(prediction) is not None


def test_what_is_kept_of_records_follows_the_pipelines_log():
    """Masked columns and records beyond the captured share are not kept."""
    masked = run(records(GOOD), snapshot(Log(mask=("age",)))).predictions[0]
    none = run(records(GOOD), snapshot(Log(capture=0.0))).predictions[0]
    half = run(records(*[GOOD] * 200), snapshot(Log(capture=0.5))).predictions

    assert [{k: v for k, v in GOOD.items() if k != "age"}] == orjson.loads(masked.records)
    assert none.records is None
    assert 60 < sum(one.records is None for one in half) < 140


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "array"),
        (b"{}", "record"),
        (b'{"record": 1}', "int"),
        (b'{"record": {"age": 1}} {}', "malformed"),
        (b'{"record": {"age": 1}, "more": 1}', "more"),
        (b'{"record": {"age": 1, "age": 2}}', "twice"),
        (b'{"record": {"age": 1}, "record": {"age": 2}}', "twice"),
        (b'{"record": {"age": NaN}}', "malformed"),
        (b'{"record": {"age": 1e999}}', "range"),
        (b'{"record": {"age": {"a": 1}}}', "object"),
        (b'{"record": ' + b"[" * 5000 + b"]" * 5000 + b"}", "recor"),
        (b'{"record": {"age": "old"}}', "age"),
        (b'{"record": {"age": true}}', "age"),
        (b'{"record": {"agee": 1}}', "agee"),
        (b'{"record": {"plan": 1.5}}', "plan"),
        (b'{"record": {"plan": "\xff"}}', "Unicode"),
        (b'{"record": {"id": "\xff"}}', "Unicode"),
        (b'{"record": {}, "entity_id": ""}', "entity_id"),
        (b'{"record": {}, "entity_id": "a\\nb"}', "entity_id"),
        (b'{"record": {}, "request_id": "%s"}' % (b"x" * 129), "request_id"),
    ],
)
@pytest.mark.parametrize("codec", [PLAIN, ColumnCodec()])
def test_poison_fails_alone_with_its_typed_reason(data, why, codec):
    """The records beside it are answered; asking again could not help, so it is not tried again."""
    batch = run(records(GOOD, data, GOOD), codec=codec)

    assert [100, 102] == sorted(batch.done)
    assert {} == batch.failed
    assert [101] == list(batch.poison)
    assert batch.poison[101].startswith("BadObject: ")
    assert why.lower() in batch.poison[101].lower(), batch.poison[101]


def test_an_empty_record_is_one_with_everything_missing():
    """As it is for a request."""
    assert [100] == run(records({})).done


def test_the_champion_answers_for_a_challenger_that_is_down():
    """And the failure is counted against the challenger."""
    server = Server(down="b")
    batch = run(records(*[GOOD] * 40), server=server)

    assert 40 == len(batch.done)
    assert {"a"} == {p.served for p in batch.predictions}
    failed = [p for p in batch.predictions if p.assigned == "b"]
    assert 5 < len(failed) < 35
    assert all(p.failed and p.challenger and "not serving" in p.failure for p in failed)
    assert not any(p.failed for p in batch.predictions if p.assigned == "a")
    assert [("a", 40 - len(failed)), ("b", len(failed)), ("a", len(failed))] == server.calls


def test_a_variant_without_a_proven_model_is_not_asked():
    """I2: its records are answered by the champion, and the failure says why."""
    server = Server()
    batch = run(records(*[GOOD] * 20), snapshot(usable="a"), server)

    assert {"a"} == {variant for variant, _ in server.calls}
    assert {"b: not proven"} == {p.failure for p in batch.predictions if p.failed}
    assert 20 == len(batch.done)


@pytest.mark.parametrize("codec", [PLAIN, ColumnCodec()])
def test_a_row_that_the_model_cannot_take_is_found_and_fails_alone(codec):
    """By halving; the others are answered, and it is tried again, for the fault may pass."""
    bodies = [{"age": age} for age in range(100)]
    server = Server(refuses=lambda variant, row: row[0] in (17, 60))

    batch = run(records(*bodies), snapshot(weights={"a": 1.0, "b": 0.0}), server, codec)

    assert {117, 160} == set(batch.failed)
    assert "answered 500" in batch.failed[117]
    assert 98 == len(batch.done)
    assert len(server.calls) < 64


def test_a_challenger_that_refuses_one_row_is_helped_out_for_that_one():
    """The champion is asked for the refused row alone."""
    server = Server(refuses=lambda variant, row: variant == "b" and row[0] == 17)
    view = snapshot(weights={"a": 0.0, "b": 1.0})

    batch = run(records(*[{"age": age} for age in range(30)]), view, server)

    assert 30 == len(batch.done)
    assert [17] == [orjson.loads(p.records)[0]["age"] for p in batch.predictions if p.failed]
    assert ("a", 1) == server.calls[-1]


def test_a_server_that_refuses_everything_is_not_asked_for_ever():
    """The calls are bounded, whatever the batch."""
    server = Server(refuses=lambda variant, row: True)

    batch = run(records(*[GOOD] * 500), snapshot(weights={"a": 1.0, "b": 0.0}), server)

    assert 500 == len(batch.failed)
    assert len(server.calls) <= 66


@pytest.mark.parametrize("status", [429, 503])
def test_an_outage_is_nobodys_fault(status):
    """Everything comes again, and no try is counted against any record."""
    for server in (Server(down="ab"), Server(refuses=lambda *_: True, status=status)):
        with pytest.raises(Retryable, match="no variant answered"):
            run(records(GOOD, GOOD), server=server)
        assert len(server.calls) <= 4


def test_poison_alone_is_told_also_in_an_outage_that_nobody_notices():
    """Without a usable record no variant has to be asked."""
    server = Server(down="ab")

    assert [100] == list(run(records(b"{"), server=server).poison)
    assert [] == server.calls


def test_without_a_live_model_everything_waits():
    """``NotProven``, before any record is judged."""
    with pytest.raises(NotProven, match="no model is live"):
        run(records(GOOD, b"{"), snapshot(variants={}, weights={}, champion=None, challenger=None))


def test_later_records_of_a_failed_ones_key_wait_behind_it():
    """They are in no list, so that they come again after it; other keys are done."""
    server = Server(refuses=lambda variant, row: row[0] == 17)
    found = records(
        {"age": 1}, {"age": 17}, {"age": 2}, {"age": 3}, b"{", keys=["k", "k", "k", "other", "k"]
    )

    batch = run(found, snapshot(weights={"a": 1.0, "b": 0.0}), server)

    assert [100, 103] == batch.done
    assert [101] == list(batch.failed)
    assert [104] == list(batch.poison)


def test_large_rows_are_sent_in_parts():
    """No call is larger than an endpoint takes."""
    wide = FeatureSpec.model_validate(
        {"task": "regression", "features": [{"kind": "image", "height": 64, "width": 64}]}
    )
    pixels = {"pixels": [0] * 4096}
    server = Server()

    batch = run(records(*[pixels] * 400), snapshot(features=wide, challenger=None,
                weights={"a": 1.0}), server, ColumnCodec())  # fmt: skip

    assert 400 == len(batch.done)
    assert 2 == len(server.calls)


def test_only_json_is_put():
    """What cannot be read back is not written."""
    with pytest.raises(BadObject, match="no JSON"):
        message({"age": float("nan")})
    assert {"record": {"a": 1}, "entity_id": "e"} == json.loads(message({"a": 1}, "e"))


def test_the_handlers_need_neither_numpy_nor_xgboost():
    """Lambda starts with them alone."""
    program = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('numpy', 'pandas', 'polars', 'xgboost'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from ml_control.core.features import FeatureSpec\n"
        "from ml_control.serving.handlers.records import answer_records\n"
        "from ml_control.serving.handlers.row_codec import PLAIN\n"
        "from ml_control.serving.handlers.envelopes import open_records, message\n"
        "from ml_control.ports import StreamRecord\n"
        "f = FeatureSpec.model_validate({'task': 'regression', 'features':"
        " [{'kind': 'number', 'name': 'a'}]})\n"
        "items, _ = open_records('p', [StreamRecord('p', 'k', message({'a': 1.5}), 1)])\n"
        "print(len(PLAIN.encode(f, items).body))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 == int(done.stdout) % 4
