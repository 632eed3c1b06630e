"""Columns and frames of a stream's batch: the same bytes and refusals as one record at a time."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop_features import FEATURES, NUMBERS

from ml_control.core.features import FeatureSpec
from ml_control.errors import PlatformFailed
from ml_control.ports import StreamRecord
from ml_control.serving.columns import ColumnCodec
from ml_control.serving.handlers.envelopes import message, open_records
from ml_control.serving.handlers.row_codec import PLAIN, answers_of
from ml_control.serving.recordio import encode_recordio, parse_recordio, row_frame

CELLS = st.one_of(
    st.none(),
    st.integers(-5, 130),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.sampled_from(["a", "b", "x", "c", "", "NA", " a ", "12", " 7.5 ", "1e5", "a:b", "inf", "é"]),
    st.lists(st.integers(0, 3), max_size=2),
)
KEYS = st.sampled_from(["age", "income", "plan", "city", "id", "target", "agee"])


@settings(max_examples=300, deadline=None)
@given(
    bodies=st.lists(
        st.one_of(
            st.dictionaries(KEYS, CELLS, max_size=6),
            st.fixed_dictionaries(
                {"age": st.floats(-1e3, 1e3), "income": st.floats(-1e39, 1e39, width=64)},
                optional={"plan": st.sampled_from("abc"), "city": st.sampled_from("xyz")},
            ),
        ),
        min_size=1,
        max_size=8,
    ),
    doubled=st.booleans(),
)
def test_columns_give_the_bytes_and_the_refusals_of_one_record_after_the_other(bodies, doubled):
    """Whatever is in the records: same rows, same places, same reasons."""
    datas = [message(body) for body in bodies]
    if doubled:
        datas.append(b'{"record":{"age":1,"age":2}}')
    items, bad = open_records(
        "shop", [StreamRecord("shop", f"user-{i}", data, i, 5.0) for i, data in enumerate(datas)]
    )

    assert {} == bad or doubled
    for features in (FEATURES, NUMBERS):
        plain, columns = PLAIN.encode(features, items), ColumnCodec().encode(features, items)
        assert (plain.size, plain.places) == (columns.size, columns.places)
        assert {place: str(error) for place, error in plain.bad.items()} == {
            place: str(error) for place, error in columns.bad.items()
        }
        one = parse_recordio(plain.body, features.width) if plain.body else np.empty(0)
        many = parse_recordio(columns.body, features.width) if columns.body else np.empty(0)
        np.testing.assert_array_equal(one, many)


@given(
    rows=st.lists(
        st.lists(st.floats(width=32, allow_infinity=False), min_size=3, max_size=3),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_uniform_frames_are_recordio_and_read_alike(rows):
    """The fast reading gives what the general one does, which reads all that differs."""
    head, tail = row_frame(3)
    matrix = np.array(rows, np.float32)
    body = b"".join(head + row.tobytes() + tail for row in matrix)

    assert body == encode_recordio(({"values": row} for row in matrix), "features")
    np.testing.assert_array_equal(matrix, parse_recordio(body, 3))
    mixed = body + encode_recordio([{"other": [1.0], "values": matrix[0]}], "features")
    np.testing.assert_array_equal(np.vstack([matrix, matrix[:1]]), parse_recordio(mixed, 3))


@settings(max_examples=100)
@given(scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6))
def test_answers_are_those_of_the_features_decoding(scores):
    """For each task: the label and score that ``FeatureSpec.decode`` gives."""
    body = orjson.dumps(scores)[1:-1].replace(b",", b"\n") + b"\n"
    for features in (FEATURES, NUMBERS):
        expected = [features.decode([score]) for score in scores]
        found = [orjson.loads(one)[0] for one in answers_of(features, len(scores), body)]
        assert [{"label": e["label"], "score": e["score"]} for e in expected] == found
    three = FeatureSpec.model_validate(
        {"task": "multiclass", "labels": ("a", "b", "c"), "features": FEATURES.features}
    )
    rows = [[score, 0.3, 0.2] for score in scores]
    body = b"\n".join(orjson.dumps(row)[1:-1] for row in rows)
    found = [orjson.loads(one)[0] for one in answers_of(three, len(rows), body)]
    assert [three.decode(row)["label"] for row in rows] == [one["label"] for one in found]


@pytest.mark.parametrize("body", [b"", b"0.5", b"0.5\nx", b"0.5,0.5\n0.5", b"0.5\nnan", b"[1]\n2"])
def test_an_answer_to_other_rows_is_refused(body):
    """Nothing is guessed about which row it belongs to."""
    with pytest.raises(PlatformFailed):
        answers_of(FEATURES, 2, body)
