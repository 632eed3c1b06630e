"""The stream's consumer dies at every point: each record is answered once, none is lost."""

from __future__ import annotations

import csv
import io
import json

import pytest
from drilling import DAYS, NAME

from ml_control.serving.handlers.envelopes import message

COUNT = 40
NO_JSON, NO_RECORD = 11, 23  # places of poison
MARKERS = [
    ("endpoints.invoke", "after"),  # predicted, and nobody knows
    ("log.append", "before"),
    ("log.append", "after"),  # written, and not settled
    ("stream.settle", "before"),
    ("ml_control.local.stream:_remove", "after"),  # in mid-settle
    ("stream.settle", "after"),
]


@pytest.fixture(scope="session")
def datas(tables):
    """Messages of real records; one is no JSON, one has a column that nobody knows."""
    text = tables[DAYS[0]].decode()
    found = []
    for place, row in enumerate(csv.DictReader(io.StringIO(text))):
        row.pop("diagnosis")
        if place == NO_RECORD:
            row["unknown"] = "1"
        data = message(row, entity_id=f"patient-{place}").decode()
        found.append(data[:-5] if place == NO_JSON else data)
        if len(found) == COUNT:
            return found
    raise AssertionError("too few rows")


def check(home, sequences, answered=None):
    """Every record is in the log once or parked with its reason, and nothing waits."""
    logged = [one.prediction for one in home.platform.log.after(NAME, 0, 10_000)]
    parked = {
        sequences.index(one.record.sequence): one.reason
        for one in home.platform.stream.parked(NAME)
    }
    state = home.platform.stream.state(NAME)

    assert {NO_JSON, NO_RECORD} == set(parked)
    assert all(reason.startswith("BadObject: ") for reason in parked.values())
    assert "unknown key 'unknown'" in parked[NO_RECORD]
    wanted = [i for i in range(COUNT) if i not in parked]
    ids = {one.request_id: one for one in logged}
    assert [f"{NAME}-{sequences[i]}" for i in wanted] == sorted(ids)
    assert len(ids) == len(logged)
    assert {f"patient-{i}" for i in wanted} == {one.entity_id for one in logged}
    assert all(not one.failed and "a" == one.served for one in logged)
    assert len(wanted) == home.platform.log.count(NAME, 0.0)
    assert (0, 0, 2) == (state.waiting, state.failing, state.parked)
    assert ["stream-parked"] == [alert.kind for alert in home.registry.alerts.open(NAME)]


def consume(home, limit=15):
    """Consume in fresh processes until nothing waits."""
    while home.do([["consume", limit]])[0][0]:
        pass


def test_a_consumer_killed_anywhere_answers_each_record_once(served, datas):
    """At each marker in turn, on one stream: what was in doubt comes again and is written once."""
    home = served
    (sequences,) = home.do([["put", datas]])
    for at, when in MARKERS:
        victim = home.stopped([["consume", 6]], at, when)
        victim.kill()

    consume(home)

    check(home, sequences)


def test_a_put_that_is_killed_has_put_all_or_nothing(served, datas):
    """In mid-put nothing is there and no number is lost; after it everything is."""
    home = served
    home.stopped([["put", datas[:10]]], "ml_control.local.stream:_insert", "after").kill()
    assert 0 == home.platform.stream.state(NAME).waiting
    home.stopped([["put", datas]], "stream.put", "after").kill()
    records = home.platform.stream.read(NAME, 1000)
    assert [data.encode() for data in datas] == [one.data for one in records]

    consume(home)

    check(home, [one.sequence for one in records])


def test_a_consumer_that_slept_through_its_turn_does_no_harm(served, datas):
    """It is stopped after writing; the lock's file vanishes and another consumes; it goes on."""
    home = served
    (sequences,) = home.do([["put", datas]])
    zombie = home.stopped([["consume", 100]], "log.append", "after")
    refused = home.refused([["consume"]])
    assert "Conflict" == refused["kind"]
    assert f"pid {zombie.process.pid}" == refused["holder"]
    zombie.pause()
    (home.folder / "stream" / f"{NAME}.lock").unlink()
    home.do([["consume", 100]])

    zombie.go()

    assert "done" in zombie.answer()
    check(home, sequences)


def test_while_no_variant_can_be_reached_everything_waits(served, datas):
    """No record is blamed; when the server is back, all are answered."""
    home = served
    (sequences,) = home.do([["put", datas]])
    home.endpoints.stop(f"{NAME}-a")

    for _ in range(3):
        assert "Retryable" == home.refused([["consume", 100]])["kind"]
    state = home.platform.stream.state(NAME)
    assert (COUNT, 0, 0) == (state.waiting, state.failing, state.parked)
    home.do([["serve"]])
    consume(home)

    check(home, sequences)


def test_by_hand_records_are_put_consumed_and_replayed(served, tables, datas):
    """The commands: a key from a column, what is parked, and what a replay changes."""
    home = served
    rows = tables[DAYS[0]].decode().splitlines()[:4]
    file = home.folder.with_name("cases.csv")
    file.write_text("\n".join(rows) + "\n")
    lines = home.folder.with_name("cases.jsonl")
    record = {**json.loads(datas[0])["record"], "who": 7}
    lines.write_text("\n".join(json.dumps(record) for _ in "ab"))

    code, said, error = home.command("stream", "put", NAME, str(file), "--json")
    assert 0 == code, error
    assert 3 == json.loads(said)["records"]
    code, _, error = home.command("stream", "put", NAME, str(lines), "--key", "who")
    assert 0 == code, error
    code, said, error = home.command("stream", "consume", NAME, "--once", "--json")
    assert 0 == code, error
    assert {"pipeline": NAME, "done": 3, "failed": 0, "parked": 2} == json.loads(said)
    code, said, error = home.command("stream", "status", NAME, "--json")
    assert 0 == code, error
    told = json.loads(said)
    assert (0, 2) == (told["waiting"], told["parked"])
    assert {"7"} == {one["key"] for one in told["parked_records"]}
    assert all("unknown key 'who'" in one["reason"] for one in told["parked_records"])
    code, said, error = home.command("stream", "replay", NAME)
    assert (0, "2 records wait again\n") == (code, said), error
    assert [] == list(home.registry.alerts.open(NAME))
    code, _, error = home.command("stream", "put", NAME, str(file), "--key", "nobody")
    assert 1 == code
    assert "error: BadObject: " in error
    assert 2 == home.platform.stream.state(NAME).waiting
