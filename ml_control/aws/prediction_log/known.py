"""What is known of a request id: where its request is, and what was told of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from ml_control.aws.prediction_log.counting import expired
from ml_control.aws.prediction_log.keys import Keys
from ml_control.aws.prediction_log.store import key_item
from ml_control.aws.prediction_log.values import (
    Item,
    binary,
    content,
    integer,
    number,
    string,
    text,
)
from ml_control.aws.schema import EXPIRES

CHUNK = 4_000  # records of a request whose outcomes are in one item
Told = dict[int, tuple[str, float]]  # by index: value as JSON, when it was told


@dataclass(slots=True)
class Known:
    """A request id. ``offset`` is 0 while nothing was logged under it; then outcomes may wait."""

    id: str  # digest
    offset: int = 0
    last: int = 0  # of its group
    commit: str = ""  # that logged it
    rollout: str = ""  # digests, of a request whose entity is exposed
    entity: str = ""
    more: int = 0  # the highest chunk of outcomes
    waiting: int = 0  # outcomes
    noted: float = 0.0  # when the last of them came
    expires: int = 0
    unread: bool = False  # nobody looked whether it is there: the commit must
    told: dict[int, Told] = field(default_factory=dict)  # by chunk, as far as it was read
    changed: set[int] = field(default_factory=set)  # chunks to be written

    def outcomes(self) -> Told:
        """All that was read."""
        return {index: one for chunk in self.told.values() for index, one in chunk.items()}

    def note(self, index: int, value: str, at: float) -> None:
        """Add an outcome."""
        chunk = index // CHUNK
        self.told.setdefault(chunk, {})[index] = (value, at)
        self.more = max(self.more, chunk)
        self.changed |= {0, chunk}

    def drop(self, index: int) -> None:
        """Take an outcome out."""
        del self.told[index // CHUNK][index]
        self.changed |= {0, index // CHUNK}

    def item(self, keys: Keys, chunk: int) -> Item:
        """The item of a chunk; the first one says also where the request is."""
        item = key_item(keys.request(self.id, chunk))
        if told := self.told.get(chunk):
            rows = [[index, *one] for index, one in told.items()]
            item["Told"] = binary(zlib.compress(orjson.dumps(rows), 1))
        if self.expires:
            item[EXPIRES] = number(self.expires)
        if chunk:
            return item
        if self.offset:
            item |= {
                "Offset": number(self.offset),
                "Last": number(self.last),
                "Commit": text(self.commit),
            }
            if self.entity:
                item |= {"Rollout": text(self.rollout), "Entity": text(self.entity)}
        else:
            item |= {"Waiting": number(self.waiting), "Noted": number(repr(self.noted))}
        if self.more:
            item["More"] = number(self.more)
        return item


def read_known(id: str, item: Item | None, floor: int, now: float) -> Known:
    """What an item says of a request id, or nothing once it is too old."""
    if item is None or expired(item, now) or 0 < integer(item, "Offset") <= floor:
        return Known(id)
    known = Known(
        id, integer(item, "Offset"), integer(item, "Last"), string(item, "Commit"),
        string(item, "Rollout"), string(item, "Entity"), integer(item, "More"),
        integer(item, "Waiting"), float(item.get("Noted", {}).get("N", 0.0)),
        integer(item, EXPIRES),
    )  # fmt: skip
    known.told[0] = read_told(item)
    return known


def read_told(item: Item | None) -> Told:
    """The outcomes in an item."""
    blob = content(item, "Told") if item else b""
    if not blob:
        return {}
    rows: list[Any] = orjson.loads(zlib.decompress(blob))
    return {index: (value, at) for index, value, at in rows}
