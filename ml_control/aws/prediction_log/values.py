"""DynamoDB's attribute values, and how groups of rows are packed into items."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import orjson

Item = dict[str, dict[str, Any]]
PART = 350 << 10  # bytes of a part, for an item holds at most 400 KB with its names
PARTS = 99


def text(value: str) -> dict[str, str]:
    """A string."""
    return {"S": value}


def number(value: float | str) -> dict[str, str]:
    """A number."""
    return {"N": str(value)}


def binary(value: bytes) -> dict[str, bytes]:
    """Bytes."""
    return {"B": value}


def integer(item: Item, name: str, otherwise: int = 0) -> int:
    """A whole number of an item."""
    found = item.get(name)
    return otherwise if found is None else int(found["N"])


def string(item: Item, name: str) -> str:
    """A string of an item; empty when it has none."""
    return str(item.get(name, {}).get("S", ""))


def content(item: Item, name: str = "Blob") -> bytes:
    """Bytes of an item; none when it has none."""
    return bytes(item.get(name, {}).get("B", b""))


def squeezed(rows: Sequence[bytes]) -> bytes:
    """Rows of JSON as one compressed list."""
    return zlib.compress(b"[" + b",".join(rows) + b"]", 1)


def unsqueezed(blob: bytes) -> list[Any]:
    """The rows of :func:`squeezed`."""
    found: list[Any] = orjson.loads(zlib.decompress(blob))
    return found


def bundled(blobs: Sequence[tuple[int, bytes]]) -> bytes:
    """Bytes by their place, compressed together."""
    head = orjson.dumps([[place, len(blob)] for place, blob in blobs])
    return zlib.compress(head + b"\n" + b"".join(blob for _, blob in blobs), 1)


def unbundled(blob: bytes) -> dict[int, bytes]:
    """What :func:`bundled` put together."""
    head, _, rest = zlib.decompress(blob).partition(b"\n")
    found, begin = {}, 0
    for place, length in orjson.loads(head):
        found[place] = rest[begin : begin + length]
        begin += length
    return found


def parts(blob: bytes) -> list[bytes]:
    """A blob in pieces that fit an item each."""
    return [blob[begin : begin + PART] for begin in range(0, len(blob), PART)]
