"""RecordIO-protobuf, the binary form of rows that SageMaker's algorithms share.

A body is a run of records: the magic number, the length and the bytes, padded to four. The bytes
are a protocol buffer, of which serving needs little::

    Record          1 features: map<string, Value>   2 label: map<string, Value>   (others skipped)
    Value           2 Float32Tensor   3 Float64Tensor   7 Int32Tensor              (others refused)
    *Tensor         1 values (packed)   2 keys (packed uint64)   3 shape (packed uint64)

With keys a tensor is sparse. Written out here because the format is small and fixed, the protobuf
runtime is neither, and every length in a request is a stranger's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.serving.refused import Refused, check_cells, check_finite, columns_refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = 0xCED7230A
VALUES = "values"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DTYPES = {2: ("<f4", _FIXED32), 3: ("<f8", _FIXED64), 7: ("int32", _VARINT)}
_NEXT = "send records as SageMaker's write_numpy_to_dense_tensor makes them"


class _Broken(ValueError):
    """The bytes are not what their lengths and tags say."""


def parse_recordio(body: bytes, num_features: int) -> NDArray[np.float32]:
    """Feature rows as float32 of shape (rows, num_features), one for each record.

    A record's features are the tensor named ``values``, dense, or sparse with its keys beginning
    at 0; what a sparse one does not name is NaN. Labels are dropped. Raises ``Refused``: 204 for
    an empty body; 415 for broken bytes, a record without features, keys named twice and infinity;
    400 when a record has more or fewer columns than the model; 413 for too many cells.
    """
    import numpy as np

    if not body:
        raise Refused(204, "")
    uniform = _parse_uniform(body, num_features)
    if uniform is not None:
        return uniform
    rows: list[NDArray[np.float32]] = []
    try:
        for record in _records(body):
            check_cells(len(rows) + 1, num_features)
            rows.append(_row(record, num_features))
    except _Broken as error:
        raise Refused(415, f"record {len(rows) + 1} {error}; {_NEXT}") from None
    matrix = np.stack(rows)
    check_finite(matrix, "record")
    return matrix


def row_frame(width: int) -> tuple[bytes, bytes]:
    """What stands before and behind the little-endian float32 values of a dense row of features."""
    values = bytes(4 * width)
    entry = _field(1, VALUES.encode()) + _field(2, _field(2, _field(1, values)))
    record = _field(1, entry)
    head = struct.pack("<II", MAGIC, len(record)) + record[: -4 * width]
    return head, b"\0" * (-len(record) % 4)


def _parse_uniform(body: bytes, num_features: int) -> NDArray[np.float32] | None:
    """Rows that are all framed as :func:`row_frame` says, at once; None for any other body."""
    import numpy as np

    head, tail = row_frame(num_features)
    size = len(head) + 4 * num_features + len(tail)
    if not body.startswith(head) or len(body) % size:
        return None
    check_cells(len(body) // size, num_features)
    frames = np.frombuffer(body, np.uint8).reshape(-1, size)
    end = size - len(tail)
    if (frames[:, : len(head)] != np.frombuffer(head, np.uint8)).any() or frames[:, end:].any():
        return None
    rows = np.ascontiguousarray(frames[:, len(head) : end]).view("<f4")
    check_finite(rows, "record")
    return rows.astype(np.float32, copy=False)


def encode_recordio(rows: Iterable[Mapping[str, Sequence[float]]], field: str = "label") -> bytes:
    """Records whose labels (or ``features``) are dense float32 tensors with these names."""
    import numpy as np

    tag = {"features": 1, "label": 2}[field]
    whole = []
    for row in rows:
        entries = []
        for name, values in row.items():
            packed = np.asarray(values, dtype="<f4").tobytes()
            tensor = _field(1, packed)
            entries.append(_field(tag, _field(1, name.encode()) + _field(2, _field(2, tensor))))
        record = b"".join(entries)
        whole += [struct.pack("<II", MAGIC, len(record)), record, b"\0" * (-len(record) % 4)]
    return b"".join(whole)


def decode_labels(body: bytes) -> list[dict[str, list[float]]]:
    """The labels of each record by name, as :func:`encode_recordio` wrote them.

    Raises ``ValueError`` for bytes that are no such records.
    """
    labels = []
    for record in _records(body):
        found = {}
        for number, _, entry in _fields(record):
            if number == 2:
                name, value = _entry(entry)
                found[name] = [float(cell) for cell in _tensor(value)[0]]
        labels.append(found)
    return labels


def _records(body: bytes) -> Iterator[memoryview]:
    view, offset = memoryview(body), 0
    while offset < len(body):
        if len(body) - offset < 8:
            raise _Broken("is cut off in its head")
        magic, length = struct.unpack_from("<II", view, offset)
        if magic != MAGIC:
            raise _Broken("does not begin with RecordIO's magic number")
        offset += 8
        # A part of a longer record has flags in the upper bits, and so is longer than any body.
        if length > len(body) - offset:
            raise _Broken("is longer than the body")
        yield view[offset : offset + length]
        offset += length + (-length % 4)


def _row(record: memoryview, num_features: int) -> NDArray[np.float32]:
    """One record's features. The last ``values`` counts, as protocol buffers merge maps."""
    import numpy as np

    value = None
    for number, kind, entry in _fields(record):
        if number == 1 and kind == _BYTES:
            name, found = _entry(entry)
            value = found if name == VALUES else value
    if value is None:
        raise _Broken(f"has no features named {VALUES!r}")
    cells, keys, shape = _tensor(value)
    with np.errstate(over="ignore"):
        row: NDArray[np.float32] = cells.astype(np.float32)
    if not keys.size and not (shape and not row.size):
        if row.size != num_features:
            raise columns_refused(row.size, num_features)
        return row
    if keys.size != row.size:
        raise _Broken(f"has {keys.size} keys for {row.size} values")
    if len(shape) > 1 and shape[:-1] != [1] * (len(shape) - 1):
        raise _Broken(f"has the shape {shape}, which is not one row")
    width = shape[-1] if shape else int(keys.max()) + 1
    beyond = int(keys.max()) + 1 if keys.size else 0
    if max(width, beyond) > num_features or (shape and width != num_features):
        raise columns_refused(max(width, beyond), num_features)
    if np.unique(keys).size != keys.size:
        raise _Broken("names a key twice")
    sparse = np.full(num_features, np.nan, np.float32)
    sparse[keys.astype(np.int64)] = row
    return sparse


def _entry(entry: Any) -> tuple[str, memoryview]:
    """Name and value of a map's entry."""
    if not isinstance(entry, memoryview):
        raise _Broken("has a map entry that is none")
    name, value = b"", memoryview(b"")
    for number, kind, content in _fields(entry):
        if kind == _BYTES and number == 1:
            name = bytes(content)
        elif kind == _BYTES and number == 2:
            value = content
    return name.decode("utf-8", "replace"), value


def _tensor(value: memoryview) -> tuple[NDArray[Any], NDArray[np.uint64], list[int]]:
    """(values, keys, shape) of a Value message that holds a tensor of numbers."""
    import numpy as np

    found = None
    for number, kind, content in _fields(value):
        if number in _DTYPES and kind == _BYTES:
            found = number, content
    if found is None:
        raise _Broken("has features that are not a tensor of numbers")
    number, content = found
    dtype, plain = _DTYPES[number]
    values, keys, shape = [], [], []
    for field, kind, part in _fields(content):
        if field == 1:
            values.append(_numbers(kind, part, dtype, plain))
        elif field == 2:
            keys.append(_numbers(kind, part, "uint64", _VARINT))
        elif field == 3:
            shape.append(_numbers(kind, part, "uint64", _VARINT))
    empty = np.zeros(0, np.uint64)
    return (
        np.concatenate(values) if values else np.zeros(0, np.float32),
        np.concatenate([empty, *keys]),
        [int(size) for part in shape for size in part],
    )


def _numbers(kind: int, content: Any, dtype: str, plain: int) -> NDArray[Any]:
    """A repeated field's numbers: packed, or one by itself, which readers must also take."""
    import numpy as np

    if kind == plain == _VARINT:
        return _varints([content], dtype)
    if kind == plain:
        return np.frombuffer(content, dtype)
    if kind != _BYTES:
        raise _Broken("has numbers of another wire type than their tensor")
    if plain == _VARINT:
        return _varints(_packed(content), dtype)
    if len(content) % np.dtype(dtype).itemsize:
        raise _Broken("has a tensor that ends within a number")
    return np.frombuffer(content, dtype)


def _varints(numbers: Iterable[int], dtype: str) -> NDArray[Any]:
    import numpy as np

    return np.fromiter(numbers, np.uint64).astype(dtype)  # int32 is kept in the low half


def _packed(content: memoryview) -> Iterator[int]:
    offset = 0
    while offset < len(content):
        number, offset = _varint(content, offset)
        yield number


def _fields(message: Any) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, content) of each field; content is a number or bytes."""
    offset = 0
    while offset < len(message):
        tag, offset = _varint(message, offset)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            content, offset = _varint(message, offset)
            yield number, kind, content
            continue
        if kind == _BYTES:
            size, offset = _varint(message, offset)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if number == 0 or size < 0 or size > len(message) - offset:
            raise _Broken("is no protocol buffer, or is cut off")
        yield number, kind, message[offset : offset + size]
        offset += size


def _varint(message: memoryview, offset: int) -> tuple[int, int]:
    """(number, offset behind it) of an unsigned 64-bit varint."""
    number = 0
    for shift in range(0, 70, 7):
        if offset >= len(message):
            break
        byte = message[offset]
        offset += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, offset
    raise _Broken("has a number that does not end")


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, as it is written."""
    size, head = len(content), bytearray([number << 3 | _BYTES])
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + content
