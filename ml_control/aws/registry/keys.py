"""Where an item and its place in the index are in a DynamoDB table.

The index is made of items of the same table, because a secondary index of DynamoDB lags behind
it: an event that is pending would be missed. An entry of the index has the partition key
``index#<index value>`` and a sort key that sorts by the item's sort key, then its partition key.
DynamoDB sorts by the bytes of UTF-8, which is the order of Python's strings and of SQLite.
"""

from __future__ import annotations

import hashlib

from ml_control.errors import InvalidSpec

INDEX = "index#"
_MOST_PARTITION = 2048  # bytes; of a sort key 1024, both DynamoDB's own
_ESCAPE = "\\"
_WHOLE = 1000  # bytes; a longer sort key is cut and gets its digest
_HEAD = 955
_LOW, _BETWEEN = "\x01", "\x01\x01"


def partition_key(pk: str) -> str:
    """The stored partition key of an item; never one of the index. Raises ``InvalidSpec``."""
    stored = _ESCAPE + pk if pk.startswith((INDEX, _ESCAPE)) else pk
    return _bounded(stored, pk)


def item_pk(stored: str) -> str:
    """The partition key of the item that is stored there."""
    return stored.removeprefix(_ESCAPE)


def sort_key(sk: str) -> str:
    """The stored sort key: of a long one its beginning and its digest.

    Of long keys that agree in the first ``_HEAD`` bytes the order is that of their digests.
    """
    data = _bytes(sk)
    if len(data) < _WHOLE:
        return sk
    head = data[:_HEAD].decode("utf-8", "ignore")
    return f"{head}~{hashlib.sha256(data).hexdigest()}"


def prefix_key(prefix: str) -> str:
    """What every stored sort key of an item whose sort key begins so begins with."""
    return _bytes(prefix)[: _HEAD - 4].decode("utf-8", "ignore")


def index_key(index: str) -> str:
    """The partition key of an index value's entries. Raises ``InvalidSpec``."""
    return _bounded(INDEX + index, index)


def entry_key(pk: str, sk: str) -> str:
    """The sort key of an item's entry."""
    return sort_key(_ordered(sk) + _BETWEEN + pk)


def entry_prefix(prefix: str) -> str:
    """What the sort key of every entry begins with whose item's sort key begins so."""
    return prefix_key(_ordered(prefix))


def is_cut(stored: str) -> bool:
    """Whether a stored sort key is not the whole one."""
    return len(_bytes(stored)) >= _WHOLE


def entry_item(stored: str) -> tuple[str, str]:
    """(pk, sk) of the item of an entry whose sort key is whole."""
    low, _, pk = stored.partition(_BETWEEN)
    sk = low.replace("\x01\x02", "\0").replace("\x01\x03", _LOW) if _LOW in low else low
    return pk, sk


def _ordered(sk: str) -> str:
    """The text without what stands between it and the partition key, in the same order."""
    if _LOW not in sk and "\0" not in sk:
        return sk
    return sk.replace(_LOW, "\x01\x03").replace("\0", "\x01\x02")


def _bounded(stored: str, told: str) -> str:
    if len(_bytes(stored)) > _MOST_PARTITION:
        raise InvalidSpec(
            f"{told[:80]!r}...", f"a key has more than {_MOST_PARTITION} bytes", "shorten it"
        )
    return stored


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSpec(repr(text[:80]), f"is no text: {error.reason}", "correct it") from error
