"""What a body must be, to the letter: everything else is refused before anybody is asked."""

from __future__ import annotations

import json

import pytest
from handling import PIPELINE, World, rollout
from hypothesis import given
from hypothesis import strategies as st

from ml_control.errors import MlControlError
from ml_control.serving.handlers.bodies import Inference, decode

BAD = {
    "NaN": b'{"records": [{"age": NaN}]}',
    "Infinity": b'{"records": [{"age": Infinity}]}',
    "too large a number": b'{"records": [{"age": 1e400}]}',
    "a key twice": b'{"records": [{"age": 1, "age": 2}]}',
    "a key twice, one escaped": b'{"records": [{"age": 1, "\\u0061ge": 2}]}',
    "a field twice": b'{"records": [{"age": 1}], "records": [{"age": 2}]}',
    "an unknown field": b'{"records": [{"age": 1}], "variant": "b"}',
    "no records": b'{"records": []}',
    "records missing": b"{}",
    "a list": b"[]",
    "an object in a record": b'{"records": [{"age": {"a": 1}}]}',
    "four lists deep": b'{"records": [{"age": [[[[1]]]]}]}',
    "100,000 lists deep": b'{"records": ' + b"[" * 100_000,
    "100,000 objects deep": b'{"records": [' + b'{"a":' * 100_000,
    "half a character": b'{"records": [{"work": "\\ud800"}]}',
    "no UTF-8": b'{"records": [{"work": "\xff"}]}',
    "something after the end": b'{"records": [{"age": 1}]} {}',
    "nothing": b"",
    "a comment": b'{"records": [{"age": 1}] /* */}',
    "single quotes": b"{'records': []}",
    "5,000 digits": b'{"records": [{"age": ' + b"9" * 5000 + b"}]}",
    "an empty entity": b'{"records": [{"age": 1}], "entity_id": ""}',
    "an entity of 129": b'{"records": [{"age": 1}], "entity_id": "' + b"x" * 129 + b'"}',
    "an entity of two lines": b'{"records": [{"age": 1}], "entity_id": "a\\n"}',
    "an invisible entity": b'{"records": [{"age": 1}], "entity_id": "a\\u200b"}',
    "a number as entity": b'{"records": [{"age": 1}], "entity_id": 7}',
    "a request id with a tab": b'{"records": [{"age": 1}], "request_id": "a\\tb"}',
    "10,001 records": json.dumps({"records": [{}] * 10_001}).encode(),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_json_is_strict(body: bytes) -> None:
    """What is not exactly a request is a typed 400, and nobody is asked."""
    world = World(rollout())

    answer = world.ask(f"/inference/{PIPELINE}", body)

    assert (400, "BadObject", []) == (
        answer.status,
        json.loads(answer.body)["error"]["kind"],
        world.asked,
    )


def test_colons_in_texts_are_no_repeated_keys() -> None:
    """Only keys count; texts and escapes are taken as they are."""
    body = b'{"records": [{"work": "a:b", "age": 1}], "entity_id": "urn:x:\xc3\xbc"}'

    assert "urn:x:ü" == decode(Inference, body).entity_id


@given(st.lists(st.tuples(st.sampled_from("ab:"), st.text(":ab", max_size=3)), max_size=4))
def test_repeated_keys_are_found_exactly(pairs: list[tuple[str, str]]) -> None:
    """A record is refused when one of its keys is there twice, and only then."""
    inner = ",".join(f"{json.dumps(key)}:{json.dumps(text)}" for key, text in pairs)
    body = f'{{"records":[{{{inner}}}]}}'.encode()
    twice = len({key for key, _ in pairs}) < len(pairs)
    try:
        decode(Inference, body)
        refused = ""
    except MlControlError as error:
        refused = error.reason

    assert twice == ("twice" in refused)
    assert twice == bool(refused)
