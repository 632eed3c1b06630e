"""The container's other forms of request: libsvm and RecordIO-protobuf."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.serving import refused
from ml_control.serving.libsvm import parse_libsvm
from ml_control.serving.recordio import MAGIC, decode_labels, encode_recordio, parse_recordio
from ml_control.serving.refused import Refused

NAN = float("nan")
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
cells = st.one_of(finite, st.just(NAN))


def matrices(cells):
    """Rows of one to five cells."""
    return st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6
        )
    )


def varint(number):
    """A protocol buffer's number."""
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number, content):
    """A protocol buffer's field of bytes, written independently of the code under test."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def record(value, name=b"values", map_field=1):
    """A framed record with one named Value."""
    data = field(map_field, field(1, name) + field(2, value))
    return struct.pack("<II", MAGIC, len(data)) + data + b"\0" * (-len(data) % 4)


def floats(*values):
    """A dense Float32Tensor as a Value."""
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def sparse(values, keys, shape):
    """A sparse Float32Tensor as a Value."""
    tensor = field(1, struct.pack(f"<{len(values)}f", *values))
    tensor += field(2, b"".join(map(varint, keys))) + field(3, b"".join(map(varint, shape)))
    return field(2, tensor)


@settings(max_examples=60, deadline=None)
@given(matrices(cells), st.booleans(), st.sampled_from(["\n", "\r\n"]), st.randoms())
def test_libsvm_rows_are_read_bit_for_bit(rows, labelled, ending, random):
    """Named features have their values, the others are missing; their order does not matter."""
    lines = []
    for row in rows:
        named = [f"{i}:{cell!r}" for i, cell in enumerate(row) if cell == cell]
        random.shuffle(named)
        lines.append(" ".join([*(["1"] if labelled or not named else []), *named]))
    if not any(":" in line for line in lines):
        return

    got = parse_libsvm(ending.join(lines).encode(), len(rows[0]))

    np.testing.assert_array_equal(np.array(rows, np.float32), got)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 204, ""),
        (b" \n\r\n", 415, "blank"),
        (b"0 1:1\n\n0 1:2", 415, "line 2 is blank"),
        (b"0.5,1.5\n", 415, "missing Content-Type means libsvm"),
        (b"1\n2\n", 415, "no row has an 'index:value'"),
        (b"x 0:1", 415, "line 1, label: 'x' is not a number"),
        (b"0 0:1 y", 415, "'y' is not 'index:value'"),
        (b"0 -1:1", 415, "'-1:1' is not 'index:value'"),
        (b"0 qid:1 0:1", 415, "'qid:1' is not 'index:value'"),
        (b"0 1:", 415, "'1:' is not 'index:value'"),
        (b"0 0:a", 415, "line 1, index 0: 'a' is not a number"),
        (b"0 0:inf", 415, "is infinite"),
        (b"0 0:1e39", 415, "line 1, column 1 is infinite as a 32-bit float"),
        (b"0 0:1 0:2", 415, "names an index twice"),
        (b"0 2:1", 400, "3 columns and the model has 2"),
        (b"0 99999999999999999999:1", 415, "is not 'index:value'"),
        (b"0 0:1\n\xff 0:1", 415, "line 2 has a byte"),
        ("0 ٣:1".encode(), 415, "line 1 has a byte"),
    ],
)
def test_a_libsvm_body_that_is_not_rows_of_the_model_is_refused(body, status, reason):
    """Every unusable body gets its status and a sentence that names the place."""
    with pytest.raises(Refused) as caught:
        parse_libsvm(body, 2)

    assert status == caught.value.status
    assert reason in caught.value.reason


@settings(max_examples=60, deadline=None)
@given(matrices(cells))
def test_dense_records_are_read_bit_for_bit(rows):
    """What an independent writer writes and what ours writes are read as the same floats."""
    want = np.array(rows, np.float32)

    ours = encode_recordio(({"values": row} for row in rows), "features")

    assert ours == b"".join(record(floats(*row)) for row in rows)
    assert want.tobytes() == parse_recordio(ours, want.shape[1]).tobytes()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.lists(finite, max_size=4)), max_size=4))
def test_labels_are_read_back(rows):
    """What an answer holds comes back by name, whatever the names."""
    assert rows == decode_labels(encode_recordio(rows))


def test_sparse_records_leave_out_what_is_missing():
    """Keys say where values are; a record of a shape and nothing else is a row of nothing."""
    body = record(sparse([1.5, -2.0], [3, 1], [4])) + record(sparse([], [], [4]))

    got = parse_recordio(body, 4)

    np.testing.assert_array_equal([[NAN, -2.0, NAN, 1.5], [NAN] * 4], got)


def test_other_tensors_unpacked_numbers_and_labels_are_read():
    """Float64 and Int32 tensors, numbers one by one, a label, and fields that nobody knows."""
    double = field(3, field(1, struct.pack("<2d", 0.1, 7.0)))
    integers = field(7, field(1, varint(5) + varint(2**64 - 3)))
    single = b"\x0d" + struct.pack("<f", 1.0) + b"\x0d" + struct.pack("<f", 2.0)
    body = record(double) + record(integers) + record(field(2, single))
    extra = field(1, field(1, b"values") + field(2, floats(8, 9)))
    extra += field(2, field(1, b"values") + field(2, floats(1))) + field(3, b"uid") + b"\x78\x01"
    body += struct.pack("<II", MAGIC, len(extra)) + extra

    got = parse_recordio(body, 2)

    want = np.array([[np.float32(0.1), 7], [5, -3], [1, 2], [8, 9]], np.float32)
    assert want.tobytes() == got.tobytes()


GOOD = record(floats(1, 2))


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 204, ""),
        (b"1,2\n", 415, "record 1 is cut off in its head"),
        (b"1,2,3,4,5\n", 415, "does not begin with RecordIO's magic number"),
        (GOOD + GOOD[:-4], 415, "record 2 is longer than the body"),
        (struct.pack("<II", MAGIC, 2**29 | 8) + b"\0" * 8, 415, "is longer than the body"),
        (struct.pack("<II", MAGIC, 2) + b"\x0a\x7f", 415, "is cut off"),
        (struct.pack("<II", MAGIC, 1) + b"\x0b", 415, "is no protocol buffer"),
        (struct.pack("<II", MAGIC, 12) + b"\xff" * 12, 415, "does not end"),
        (struct.pack("<II", MAGIC, 0), 415, "has no features named 'values'"),
        (record(floats(1, 2), b"other"), 415, "has no features named 'values'"),
        (record(floats(1, 2), map_field=2), 415, "has no features named 'values'"),
        (record(field(9, b"bytes")), 415, "not a tensor of numbers"),
        (record(field(2, field(1, b"abcde"))), 415, "ends within a number"),
        (record(floats(1, 2, 3)), 400, "3 columns and the model has 2"),
        (record(floats(1)), 400, "1 columns and the model has 2"),
        (record(sparse([1.0], [2], [2])), 400, "3 columns"),
        (record(sparse([1.0], [0], [1])), 400, "1 columns"),
        (record(sparse([1.0], [0], [2**63])), 400, "columns"),
        (record(sparse([1.0], [2**64 - 1], [2])), 400, "columns"),
        (record(sparse([1.0], [0, 1], [2])), 415, "2 keys for 1 values"),
        (record(sparse([1.0, 2.0], [1, 1], [2])), 415, "names a key twice"),
        (record(sparse([1.0], [0], [3, 2])), 415, "is not one row"),
        (record(floats(1, float("inf"))), 415, "record 1, column 2 is infinite"),
        (record(field(3, field(1, struct.pack("<2d", 1, 1e39)))), 415, "is infinite"),
    ],
)
def test_records_that_are_not_rows_of_the_model_are_refused(body, status, reason):
    """Every unusable body gets its status and a sentence that names the record."""
    with pytest.raises(Refused) as caught:
        parse_recordio(body, 2)

    assert status == caught.value.status
    assert reason in caught.value.reason


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.just(GOOD * 2)), st.data())
def test_any_bytes_are_read_or_refused(body, data):
    """Neither random bytes nor a good body with a byte changed fail in any other way."""
    if body and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(body) - 1))
        body = body[:place] + data.draw(st.binary(min_size=1, max_size=2)) + body[place + 1 :]
    framed = struct.pack("<II", MAGIC, len(body)) + body

    for parse, bad in ((parse_recordio, body), (parse_recordio, framed), (parse_libsvm, body)):
        try:
            rows = parse(bad, 2)
        except Refused as answer:
            assert answer.status in {204, 400, 415}  # noqa: PT017 (either way is an answer)
        else:
            assert (np.float32, 2) == (rows.dtype, rows.shape[1])
            assert not np.isinf(rows).any()


@pytest.mark.parametrize(
    ("parse", "body"),
    [(parse_libsvm, b"0\n" * 99 + b"0 1:1"), (parse_recordio, record(sparse([], [], [100])) * 100)],
)
def test_a_small_body_does_not_make_a_large_array(monkeypatch, parse, body):
    """Rows x features are bounded before memory is taken: 413, send fewer rows."""
    monkeypatch.setattr(refused, "MAX_CELLS", 9_999)

    with pytest.raises(Refused, match="send fewer rows") as caught:
        parse(body, 100)

    assert caught.value.status == 413
