"""Groups of rows in the order of their offsets: written in parts, read whole and without holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ml_control.aws.prediction_log.keys import Key, Keys, group_key
from ml_control.aws.prediction_log.store import ITEM, Store, key_item
from ml_control.aws.prediction_log.values import (
    Item,
    binary,
    content,
    integer,
    number,
    parts,
    unbundled,
    unsqueezed,
)

_END = "~"  # after every digit


@dataclass(frozen=True)
class Group:
    """What one commit wrote into an area."""

    first: int  # offset
    last: int
    count: int  # rows; of ``requests``: captured ones
    noted: float  # UTC seconds
    parts: int
    blob: bytes

    def rows(self) -> list[Any]:
        """The rows, from ``first`` on."""
        return unsqueezed(self.blob)

    def records(self) -> dict[int, bytes]:
        """Captured records by offset."""
        return {self.first + place: blob for place, blob in unbundled(self.blob).items()}

    def keys(self, keys: Keys, area: str) -> list[Key]:
        """The keys of its items."""
        return [(keys.area(area), group_key(self.last, part)) for part in range(self.parts)]


def group_items(
    keys: Keys, area: str, first: int, last: int, count: int, noted: float, blob: bytes
) -> list[Item]:
    """The items of a group, one for each part."""
    pieces = parts(blob)
    return [
        {
            **key_item((keys.area(area), group_key(last, place))),
            "First": number(first),
            "Count": number(count),
            "Noted": number(repr(noted)),
            "Parts": number(len(pieces)),
            "Blob": binary(piece),
        }
        for place, piece in enumerate(pieces)
    ]


def _group(items: list[Item]) -> Group:
    head = items[0]
    return Group(
        integer(head, "First"),
        int(head[ITEM]["S"].partition("#")[0]),
        integer(head, "Count"),
        float(head["Noted"]["N"]),
        integer(head, "Parts"),
        b"".join(content(item) for item in items),
    )


def read_groups(
    store: Store,
    keys: Keys,
    area: str,
    after: int,
    up_to: int | None = None,
    *,
    backwards: bool = False,
    page: int = 0,
) -> Iterator[Group]:
    """Groups with an offset after ``after``, in order, each whole; one that is only partly there
    yet is left out.
    """  # fmt: skip
    end = _END if up_to is None else group_key(up_to) + _END
    items = store.query(
        keys.area(area), f"{max(0, after + 1):016d}", end, backwards=backwards, page=page
    )
    yield from _whole(items, backwards=backwards)


def _whole(items: Iterable[Item], *, backwards: bool) -> Iterator[Group]:
    found: list[Item] = []
    for item in items:
        if found and _name(item) != _name(found[0]):
            found = []
        found.append(item)
        if len(found) == integer(item, "Parts"):
            yield _group(found[::-1] if backwards else found)
            found = []


def _name(item: Item) -> str:
    return str(item[ITEM]["S"]).partition("#")[0]


def get_groups(store: Store, keys: Keys, wanted: Iterable[tuple[str, int]]) -> dict[Any, Group]:
    """Groups by area and last offset: those that are wholly there."""
    names = list(dict.fromkeys(wanted))
    found = store.get((keys.area(area), group_key(last)) for area, last in names)
    more = [
        (keys.area(area), group_key(last, part))
        for area, last in names
        if (item := found.get((keys.area(area), group_key(last)))) is not None
        for part in range(1, integer(item, "Parts"))
    ]
    found.update(store.get(more))
    groups: dict[tuple[str, int], Group] = {}
    for area, last in names:
        first = found.get((keys.area(area), group_key(last)))
        if first is None:
            continue
        own = [
            found.get((keys.area(area), group_key(last, part)))
            for part in range(integer(first, "Parts"))
        ]
        whole = [item for item in own if item is not None]
        if len(whole) == len(own):
            groups[area, last] = _group(whole)
    return groups
