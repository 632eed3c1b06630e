"""The index made to agree with the items again.

Nothing that writes through ``DynamoTables`` can part them. A table that was restored to a point in
time can: it may hold a part of a transaction that was made at that very moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ml_control.aws.client import Clients
from ml_control.aws.registry import keys, planning, stored
from ml_control.aws.registry.known import Key
from ml_control.aws.registry.reading import Reader
from ml_control.aws.registry.schema_check import diagnosed
from ml_control.aws.registry.sending import Waits, send
from ml_control.aws.registry.stored import Attributes, State
from ml_control.aws.schema import KEYS
from ml_control.lake import Lake
from ml_control.ports import Item, Put, Table


class Repair:
    """One look through every table; nobody need stop meanwhile."""

    def __init__(self, clients: Clients, lake: Lake, reader: Reader, patience: float) -> None:
        self._clients = clients
        self._lake = lake
        self._reader = reader
        self._patience = patience

    def index(self) -> int:
        """Write missing entries and remove wrong ones; gives how many.

        Reads every item whole. Raises ``PlatformFailed`` or ``Unknown`` for one that is damaged.
        """
        return sum(self._page(table, page) for table in KEYS for page in self._pages(table))

    def _page(self, table: Table, page: list[Attributes]) -> int:
        entries = {self._entry(table, each): each for each in page if self._is_entry(table, each)}
        items = [self._reader.item(table, each) for each in page if not self._is_entry(table, each)]
        behind = self._reader.many(((table, pk, sk) for pk, sk, _ in entries), bodies=False)
        changed = 0
        for (pk, sk, index), entry in entries.items():
            now = stored.state_of(behind.get((table, pk, sk)))
            if now.index != index:
                changed += self._removed((table, pk, sk), now, entry)
        listed = [item for item in items if item.index is not None]
        there = self._reader.entries_of(table, listed)
        for item in listed:
            have = there.get((item.pk, item.sk))
            if have is None or stored.state_of(have).version != item.version:
                changed += self._written(table, item)
        return changed

    def _removed(self, key: Key, now: State, entry: Attributes) -> int:
        """Remove an entry while its item is as it was read; later it is another one's matter."""
        name = self._clients.settings.table(key[0])
        check = planning.condition_check(key, name, now)
        places = {each: entry[each] for each in KEYS[key[0]]}
        return self._send([check, {"Delete": {"TableName": name, "Key": places}}], key)

    def _written(self, table: Table, item: Item) -> int:
        name, key = self._clients.settings.table(table), (table, item.pk, item.sk)
        body = stored.body_of(item)
        plan = planning.Planned(0, Put(table, item, item.version), body)
        planning.inline(plan, self._lake)
        entry = stored.entry_attributes(table, item, body, item.version)
        check = planning.condition_check(key, name, State(item.version, item.index))
        return self._send([check, {"Put": {"TableName": name, "Item": entry}}], key)

    def _send(self, actions: list[Mapping[str, Any]], key: Key) -> int:
        failed = send(
            self._clients.client("dynamodb"),
            actions,
            f"{key[1]} {key[2]}",
            Waits(self._patience),
            lambda error: diagnosed(self._clients, error),
        )
        return 0 if failed else 1  # written by someone else meanwhile, and its entries with it

    def _pages(self, table: Table) -> Iterator[list[Attributes]]:
        request: dict[str, Any] = {
            "TableName": self._clients.settings.table(table),
            "ConsistentRead": True,
        }
        while True:
            with self._reader.errors(f"registry table {table}"):
                answer = self._clients.client("dynamodb").scan(**request)
            yield answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _is_entry(self, table: Table, found: Attributes) -> bool:
        return str(found[KEYS[table][0]]["S"]).startswith(keys.INDEX)

    def _entry(self, table: Table, found: Attributes) -> tuple[str, str, str]:
        place = str(found[KEYS[table][0]]["S"])
        return (*stored.identity(table, found), place.removeprefix(keys.INDEX))
