"""An item as DynamoDB keeps it.

The body is its JSON text, so that numbers come back as they were; compressed where that is
smaller. A text too large for an item is an object of the lake, named by its digest and written
before the item; whoever reads it verifies it. An entry of the index is a copy of a small item, and
only points to a larger one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_control.aws.registry import keys
from ml_control.aws.schema import KEYS
from ml_control.core.digests import sha256
from ml_control.errors import BadObject, Conflict, InvalidSpec, PlatformFailed, Retryable, Unknown
from ml_control.lake import Lake
from ml_control.ports import Item, Table

VERSION, INDEX_VALUE = "Revision", "IndexValue"
# Not "Version": that is a key of model-metadata.
_TEXT, _PACKED, _DIGEST, _SUM = "Body", "Packed", "BodySha256", "Sum"
_PK, _SK = "ItemPk", "ItemSk"  # of an item whose stored key is not its whole key
INLINE = 300_000  # bytes of a stored body; DynamoDB takes 400 KB with keys and names
_COPIED = 2_000  # bytes of a stored body that entries of the index hold as well
_WORTH = 1_000  # bytes from which a text is compressed: what is written is billed by 1 KB
_BESIDE = 300  # bytes of attribute names and numbers
RESTORE = "restore the tables to a point in time (docs/aws.md); nothing was changed"

Attributes = dict[str, Any]


@dataclass(frozen=True)
class State:
    """What a condition is about: an item's version (0: absent) and its index value."""

    version: int
    index: str | None = None


ABSENT = State(0)


@dataclass
class Body:
    """A body as text, and what of it the item holds."""

    text: bytes
    held: Attributes

    @property
    def size(self) -> int:
        """Bytes in the item."""
        return _length(self.held)


def body_of(item: Item) -> Body:
    """The body as it is stored while it fits. Raises ``InvalidSpec`` for what is no text."""
    text = json.dumps(dict(item.body), ensure_ascii=False, separators=(",", ":"))
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSpec(
            f"{item.pk} {item.sk}", f"its body is no text: {error.reason}", "correct it"
        ) from error
    if len(data) > _WORTH and len(packed := zlib.compress(data)) < len(data):
        return Body(data, {_PACKED: {"B": packed}})
    return Body(data, {_TEXT: {"S": text}})


def spill(lake: Lake, table: Table, body: Body) -> None:
    """Put a body's text into the lake, so that the item holds its digest alone."""
    digest = sha256(body.text)
    if _DIGEST in body.held:
        return
    place = _place(table, digest)
    try:
        lake.create(place, body.text)
    except Conflict:
        try:
            lake.verified(place, digest)
        except BadObject:  # damaged meanwhile: this is what it must be
            lake.put(place, body.text)
    body.held = {_DIGEST: {"S": digest}}


def item_attributes(table: Table, item: Item, body: Body, version: int) -> Attributes:
    """All attributes of an item."""
    pk, sk = KEYS[table]
    stored = keys.sort_key(item.sk)
    found = {
        pk: {"S": keys.partition_key(item.pk)},
        sk: {"S": stored},
        **_common(item, body, version),
    }
    if stored != item.sk:
        found[_SK] = {"S": item.sk}
    return found


def entry_attributes(table: Table, item: Item, body: Body, version: int) -> Attributes:
    """All attributes of the entry of an item that has an index value."""
    pk, sk = KEYS[table]
    stored = keys.entry_key(item.pk, item.sk)
    found = {pk: {"S": keys.index_key(item.index or "")}, sk: {"S": stored}}
    found |= _common(item, body, version)
    if body.size > _COPIED:
        for name in body.held:
            del found[name]
    if keys.is_cut(stored):
        found |= {_PK: {"S": item.pk}, _SK: {"S": item.sk}}
    return found


def _common(item: Item, body: Body, version: int) -> Attributes:
    found = {
        VERSION: {"N": str(version)},
        _SUM: {"N": str(_sum(item.pk, item.sk, item.index, body.text))},
        **body.held,
    }
    if item.index is not None:
        found[INDEX_VALUE] = {"S": item.index}
    return found


def size_of(attributes: Attributes) -> int:
    """At most so many bytes does DynamoDB count for these attributes."""
    return _BESIDE + _length(attributes)


def _length(attributes: Attributes) -> int:
    return sum(
        len(value.encode() if isinstance(value, str) else value)
        for attribute in attributes.values()
        for value in attribute.values()
    )


def item_key(table: Table, pk: str, sk: str) -> Attributes:
    """The key of an item."""
    names = KEYS[table]
    return {names[0]: {"S": keys.partition_key(pk)}, names[1]: {"S": keys.sort_key(sk)}}


def old_entry_key(table: Table, index: str, pk: str, sk: str) -> Attributes:
    """The key of an item's entry under an index value."""
    names = KEYS[table]
    return {names[0]: {"S": keys.index_key(index)}, names[1]: {"S": keys.entry_key(pk, sk)}}


def identity(table: Table, found: Mapping[str, Any]) -> tuple[str, str]:
    """(pk, sk) of a stored item or entry."""
    names = KEYS[table]
    pk, sk = found[names[0]]["S"], found[names[1]]["S"]
    if not pk.startswith(keys.INDEX):
        return keys.item_pk(pk), found[_SK]["S"] if _SK in found else sk
    if _SK in found:
        return found[_PK]["S"], found[_SK]["S"]
    return keys.entry_item(sk)


def state_of(found: Mapping[str, Any] | None) -> State:
    """Version and index value of a stored item, or that it is absent."""
    if not found:
        return ABSENT
    index = found[INDEX_VALUE]["S"] if INDEX_VALUE in found else None
    return State(int(found[VERSION]["N"]), index)


def is_pointer(found: Mapping[str, Any]) -> bool:
    """Whether this is an entry without a copy of the body."""
    return not found.keys() & {_TEXT, _PACKED, _DIGEST}


def item_of(lake: Lake, table: Table, found: Mapping[str, Any]) -> Item:
    """The item of stored attributes, with its body from the lake if it is there.

    Raises ``PlatformFailed`` for what is not as it was written, ``Unknown`` when the lake has lost
    the body.
    """
    pk, sk = identity(table, found)
    object = f"{pk} {sk}"
    try:
        state = state_of(found)
        text = _text(lake, table, object, found)
        if int(found[_SUM]["N"]) != _sum(pk, sk, state.index, text):
            raise ValueError("its checksum differs")
        body: dict[str, Any] = json.loads(text)
    except (KeyError, ValueError, zlib.error) as error:
        raise PlatformFailed(
            object, f"the registry's record is damaged: it is not as it was written: {error}",
            RESTORE,
        ) from error  # fmt: skip
    return Item(pk, sk, body, state.index, state.version)


def _text(lake: Lake, table: Table, object: str, found: Mapping[str, Any]) -> bytes:
    if _TEXT in found:
        return str(found[_TEXT]["S"]).encode()
    if _PACKED in found:
        return zlib.decompress(found[_PACKED]["B"])
    digest = str(found[_DIGEST]["S"])
    place = _place(table, digest)
    try:
        return lake.verified(place, digest)
    except (BadObject, Retryable) as error:
        raise Unknown(
            object,
            f"its body is the lake's {place}, which {error.reason}",
            "restore that object's version in the bucket of the logs",
        ) from error


def _place(table: Table, digest: str) -> str:
    return f"logs/registry/{table}/{digest}"


def _sum(pk: str, sk: str, index: str | None, text: bytes) -> int:
    return zlib.crc32("\0".join((pk, sk, index or "")).encode() + b"\0" + text)
