"""A record as Kinesis holds it: whose it is, its key and its time, before its data.

    "mlc1" | length of pipeline (2 bytes) | of key (2) | UTC seconds (8) | pipeline | key | data

All pipelines share one stream, so a reader tells a foreign record by its first bytes, unparsed.
"""

from __future__ import annotations

import struct
from hashlib import sha256

from ml_control.ports import StreamRecord

_MARK = b"mlc1"
_HEAD = struct.Struct(">4sHHd")
_SPAN = 10**60  # more than any number of Kinesis, which has 56 digits


def sealed(record: StreamRecord, at: float) -> bytes:
    """A record's bytes in the stream, put at this time."""
    pipeline, key = record.pipeline.encode(), record.key.encode()
    return _HEAD.pack(_MARK, len(pipeline), len(key), at) + pipeline + key + record.data


def opened(data: bytes, sequence: int) -> StreamRecord | None:
    """The record of these bytes; None for bytes that are none of ours."""
    if len(data) < _HEAD.size:
        return None
    mark, pipeline, key, at = _HEAD.unpack_from(data)
    begin = _HEAD.size + pipeline
    if mark != _MARK or len(data) < begin + key:
        return None
    try:
        name, entity = data[_HEAD.size : begin].decode(), data[begin : begin + key].decode()
    except UnicodeDecodeError:
        return None
    return StreamRecord(name, entity, data[begin + key :], sequence, at)


def partition_key(record: StreamRecord) -> str:
    """What Kinesis chooses the shard by: one for each key of a pipeline, so that order holds."""
    return sha256(f"{record.pipeline}\0{record.key}".encode()).hexdigest()


def sequence_of(shard: int, number: int) -> int:
    """A record's sequence number: Kinesis' own is only unique within its shard.

    In decimal the last 60 digits are Kinesis' number, and those before them the shard's.
    """
    return shard * _SPAN + number


def place_of(sequence: int) -> tuple[int, int]:
    """(shard, Kinesis' number) of a sequence number."""
    return divmod(sequence, _SPAN)


def shard_number(shard: str) -> int:
    """The number in a shard's id: a child's is larger than its parents'."""
    return int(shard.rpartition("-")[2])
