"""A stream's records as bytes: opened strictly, with the ids that they have or are given.

``{"record": {...}, "entity_id": "...", "request_id": "..."}``, the ids optional. Without an entity
the record's key is it. Without a request id one is derived from pipeline and sequence number: the
same at every delivery, so that a result is written once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from ml_control.errors import BadObject
from ml_control.ports import StreamRecord
from ml_control.serving.handlers.bodies import Id, Record, Strict, decode

_NEXT = 'put {"record": {...}}, with "entity_id" and "request_id" if you like'


class _Envelope(Strict):
    """The ids, and the record as it was written."""

    record: msgspec.Raw
    entity_id: Id | None = None
    request_id: Id | None = None


class Whole(Strict):
    """The same with the record read."""

    record: Record
    entity_id: Id | None = None
    request_id: Id | None = None


class Item(msgspec.Struct, gc=False):
    """One record of a batch. ``text`` is the JSON list of the one record, as it was written;
    ``values`` what an opener of this ``shape`` read in it.
    """

    sequence: int
    key: str
    request_id: str
    entity_id: str
    data: bytes
    text: bytes
    values: tuple[Any, ...] | None = None
    shape: Any = None

    def read(self) -> dict[str, Any]:
        """The record. Raises ``BadObject`` for what is no record of plain values."""
        return read(self.data).record


_open = msgspec.json.Decoder(_Envelope).decode
# Opens plain records at once; leaves out those that it cannot vouch for, by their places.
Opener = Callable[[str, Sequence[StreamRecord]], list[Item | None]]


def open_records(
    pipeline: str, records: Sequence[StreamRecord], opener: Opener | None = None
) -> tuple[list[Item], dict[int, BadObject]]:
    """The records that can be opened, in order, and why the others cannot, by sequence number."""
    opened = opener(pipeline, records) if opener else [None] * len(records)
    if None not in opened:
        return cast("list[Item]", opened), {}
    items: list[Item] = []
    bad: dict[int, BadObject] = {}
    for record, ready in zip(records, opened, strict=True):
        if ready is not None:
            items.append(ready)
            continue
        data = record.data
        try:
            found = _open(data)
            text = b"[%b]" % found.record
            entity, request = found.entity_id, found.request_id
            keys = 1 + (entity is not None) + (request is not None)
            if data.count(b":") - text.count(b":") != keys:
                read(data)  # a key twice, or a colon within an id
        except BadObject as error:
            bad[record.sequence] = error
            continue
        except (ValueError, RecursionError):
            bad[record.sequence] = _refusal(data)
            continue
        items.append(
            Item(
                record.sequence,
                record.key,
                request or derived_id(pipeline, record.sequence),
                entity or record.key,
                data,
                text,
            )
        )
    return items, bad


def derived_id(pipeline: str, sequence: int) -> str:
    """The request id of a record that has none of its own."""
    return f"{pipeline}-{sequence}"


def read(data: bytes) -> Whole:
    """A whole message. Raises ``BadObject`` with the place in it that is wrong."""
    try:
        return decode(Whole, data)
    except BadObject as error:
        raise BadObject("stream record", error.reason.replace("body", "record"), _NEXT) from None
    except (ValueError, RecursionError) as error:
        raise BadObject("stream record", f"is no JSON: {type(error).__name__}", _NEXT) from None


def _refusal(data: bytes) -> BadObject:
    """Why data cannot be opened, in the words of the strict reading."""
    try:
        read(data)
    except BadObject as error:
        return error
    return BadObject("stream record", "is not usable JSON", _NEXT)


def message(
    record: dict[str, Any], entity_id: str | None = None, request_id: str | None = None
) -> bytes:
    """A record as it is put. Raises ``BadObject`` for what is no JSON."""
    body: dict[str, Any] = {"record": record}
    if entity_id is not None:
        body["entity_id"] = entity_id
    if request_id is not None:
        body["request_id"] = request_id
    try:
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise BadObject("stream record", f"is no JSON: {error}", _NEXT) from None
