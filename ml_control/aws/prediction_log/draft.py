"""One commit in the making: what it read, what it changes, and the actions that it becomes.

Everything is read after the head, and the commit is refused if the head was moved meanwhile; so
what was read still holds when it is written, and no item but the head needs a condition. Ids of
requests are an exception: they are not even read, for nearly all are new. That an id is not there
is a condition then, and only a commit that was refused is drafted anew with care.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ml_control.aws.prediction_log.counting import Counts
from ml_control.aws.prediction_log.groups import Group, get_groups, group_items
from ml_control.aws.prediction_log.head import RECENT, Head, head_item
from ml_control.aws.prediction_log.keys import Key, Keys
from ml_control.aws.prediction_log.known import Known
from ml_control.aws.prediction_log.store import ACTIONS, SUBJECT, Store, key_item
from ml_control.aws.prediction_log.values import PART, Item, bundled, squeezed
from ml_control.errors import BadObject

_SIZE = 2 << 20  # bytes before compression of a commit of several; DynamoDB takes 4 MB
_LARGEST = 390_000  # bytes of an item


class Full(Exception):
    """It does not fit this commit any more."""


class Seen:
    """Exposed entities that this process knows of, and whether an outcome of theirs was judged.

    They are never taken back but when the head says that entities were forgotten.
    """

    def __init__(self, most: int = 50_000) -> None:
        self._most, self._forgets = most, -1
        self.judged: dict[Key, bool] = {}

    def under(self, head: Head) -> None:
        """Begin anew if entities were forgotten, or there are too many."""
        if head.forgets != self._forgets or len(self.judged) > self._most:
            self._forgets = head.forgets
            self.judged = {}


class Draft:
    """A commit on top of a head."""

    def __init__(self, store: Store, keys: Keys, head: Head, seen: Seen, days: float) -> None:
        self.store, self.keys, self.before, self.days = store, keys, head, days
        self.head = head
        self.commit = secrets.token_hex(8)
        self.now = time.time()
        self.seen = seen
        seen.under(head)
        self.known: dict[str, Known] = {}
        self.exposed: dict[Key, bool] = {}  # exposed entities: whether judged
        self.groups: dict[int, Group] = {}  # of requests, by last offset
        self.counts = Counts(keys)
        self.puts: dict[Key, Item] = {}
        self.deletes: set[Key] = set()
        self._changed: set[Key] = set()  # of ``exposed``
        self._ids: set[str] = set()  # of ``known``, logged or told here
        self._rows: list[bytes] = []
        self._records: list[tuple[int, bytes]] = []
        self._joined: list[bytes] = []
        self._sizes = [0, 0, 0]

    def move(self, **changes: int) -> None:
        """Change the head."""
        self.head = replace(self.head, **changes)  # type: ignore[arg-type]

    def require(self, actions: int, size: int) -> None:
        """Raise ``Full`` unless so many actions and bytes more fit."""
        if self.actions_now + actions + size // PART > ACTIONS:
            raise Full
        if sum(self._sizes) and sum(self._sizes) + size > _SIZE:
            raise Full

    @property
    def actions_now(self) -> int:
        """Actions so far, at most; the three groups count from the start."""
        groups = sum(size // PART + 1 for size in self._sizes)
        chunks = sum(len(self.known[id].changed) for id in self._ids)
        own = len(self.puts) + len(self.deletes) + len(self._changed)
        return 1 + groups + chunks + own + len(self.counts)

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._ids or self.puts or self.deletes or self.head != self.before)

    def add_row(self, known: Known, row: bytes, records: bytes | None) -> None:
        """Log a request at the next offset."""
        known.offset, known.commit = self.head.next, self.commit
        if records is not None:
            self._records.append((len(self._rows), records))
        self._rows.append(row)
        self._sizes[0] += len(row)
        self._sizes[1] += len(records or b"")
        known.changed.add(0)
        self._ids.add(known.id)
        self.move(next=self.head.next + 1)

    def row(self, offset: int) -> bytes:
        """A request that is logged here."""
        return self._rows[offset - self.before.next]

    def add_joined(self, row: bytes) -> None:
        """Join an outcome at the next offset."""
        self._joined.append(row)
        self._sizes[2] += len(row)
        self.move(next_joined=self.head.next_joined + 1)

    def change(self, known: Known) -> None:
        """Write what was changed of a request id."""
        self._ids.add(known.id)

    def expose(self, key: Key, *, judged: bool) -> None:
        """Note an entity."""
        self.exposed[key] = judged
        self._changed.add(key)

    def group_of(self, known: Known) -> Group | None:
        """The group of a logged request, if it was there when it was looked for."""
        return self.groups.get(known.last)

    def load_groups(self, lasts: Iterable[int]) -> None:
        """Read groups of requests."""
        found = get_groups(self.store, self.keys, (("requests", last) for last in lasts))
        self.groups |= {last: group for (_, last), group in found.items()}

    def actions(self) -> list[dict[str, Any]]:
        """The transaction; the head comes first. Raises ``BadObject`` for what no item holds."""
        puts = [*self._groups()]
        for id in self._ids:
            known = self.known[id]
            if known.commit == self.commit:
                known.last = self.head.next - 1
            puts += [known.item(self.keys, chunk) for chunk in sorted(known.changed)]
        puts += [{**key_item(key), "Judged": {"BOOL": self.exposed[key]}} for key in self._changed]
        puts += self.puts.values()
        unread = {self.keys.request(id) for id in self._ids if self.known[id].unread}
        actions = [self._put(item, unread) for item in puts]
        table = self.store.table
        actions += [
            {"Update": {"TableName": table, **update}}
            for _, update in self.counts.updates(self.days)
        ]
        actions += [{"Delete": {"TableName": table, "Key": key_item(key)}} for key in self.deletes]
        if len(actions) >= ACTIONS:
            raise BadObject(
                self.keys.subject, f"{len(actions)} items would change in one commit, of {ACTIONS}",
                "tell outcomes of fewer records",
            )  # fmt: skip
        return [self._head(), *actions]

    def _put(self, item: Item, unread: set[Key]) -> dict[str, Any]:
        size = sum(len(value.get("B", b"")) for value in item.values())
        if size > _LARGEST:
            raise BadObject(
                self.keys.subject, f"{size} bytes of outcomes of one request are too many",
                "tell outcomes as labels or numbers",
            )  # fmt: skip
        put: dict[str, Any] = {"TableName": self.store.table, "Item": item}
        if (item[SUBJECT]["S"], item["Item"]["S"]) in unread:
            put["ConditionExpression"] = "attribute_not_exists(#s)"
            put["ExpressionAttributeNames"] = {"#s": SUBJECT}
        return {"Put": put}

    def _groups(self) -> Iterable[Item]:
        last, joined = self.head.next - 1, self.head.next_joined - 1
        first = self.before.next
        if self._rows:
            blob, captured = squeezed(self._rows), len(self._records)
            yield from group_items(self.keys, "requests", first, last, captured, self.now, blob)
        if self._records:
            blob, count = bundled(self._records), len(self._records)
            yield from group_items(self.keys, "records", first, last, count, self.now, blob)
        if self._joined:
            blob, count = squeezed(self._joined), len(self._joined)
            first = self.before.next_joined
            yield from group_items(self.keys, "joined", first, joined, count, self.now, blob)

    def _head(self) -> dict[str, Any]:
        put: dict[str, Any] = {
            "TableName": self.store.table,
            "Item": head_item(self.keys.head, self.head, self.commit),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if self.before.commit:
            put["ConditionExpression"] = "#c = :c"
            put["ExpressionAttributeNames"] = {"#c": "Commit"}
            put["ExpressionAttributeValues"] = {":c": {"S": self.before.commit}}
        else:
            put["ConditionExpression"] = "attribute_not_exists(#c)"
            put["ExpressionAttributeNames"] = {"#c": "Commit"}
        return {"Put": put}

    def committed(self) -> Head:
        """The head after this commit; what it learnt of entities is kept."""
        self.seen.judged |= self.exposed
        recent = (self.commit, *self.before.recent)
        return replace(self.head, recent=recent[:RECENT])
