"""What a commit has read, kept while it is drafted anew because another one was faster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ml_control.aws.prediction_log.groups import Group, get_groups
from ml_control.aws.prediction_log.keys import Key, Keys
from ml_control.aws.prediction_log.store import Store
from ml_control.aws.prediction_log.values import Item, text

REVISION = "Revision"  # the commit that wrote an item last


class Loaded:
    """Items, each of them read once; what is written in their place is written on condition that
    they are still the same. So a commit that lost a race needs no look at the table before it tries
    again, and cannot be outrun for long by those who have nothing to read.
    """

    def __init__(self, store: Store, keys: Keys, forgets: int) -> None:
        self.store, self.keys, self.forgets = store, keys, forgets
        self._items: dict[Key, Item | None] = {}
        self._groups: dict[int, Group] = {}
        self.found: dict[str, Any] = {}  # by queries

    def read(self, keys: Iterable[Key]) -> dict[Key, Item]:
        """The items that are there."""
        wanted = list(dict.fromkeys(keys))
        new = [key for key in wanted if key not in self._items]
        got = self.store.get(new)
        self._items.update((key, got.get(key)) for key in new)
        return {key: item for key in wanted if (item := self._items[key]) is not None}

    def groups(self, lasts: Iterable[int]) -> dict[int, Group]:
        """Groups of requests by their last offsets: those that are there."""
        wanted = set(lasts)
        new = wanted - self._groups.keys()
        got = get_groups(self.store, self.keys, (("requests", last) for last in new))
        self._groups.update((last, group) for (_, last), group in got.items())
        return {last: self._groups[last] for last in wanted if last in self._groups}

    def condition(self, key: Key) -> dict[str, Any]:
        """That an item is as it was read; one that nobody looked for must not be there."""
        item = self._items.get(key)
        if item is None:
            return {
                "ConditionExpression": "attribute_not_exists(#revision)",
                "ExpressionAttributeNames": {"#revision": REVISION},
            }
        return {
            "ConditionExpression": "#revision = :revision",
            "ExpressionAttributeNames": {"#revision": REVISION},
            "ExpressionAttributeValues": {":revision": text(item[REVISION]["S"])},
        }
