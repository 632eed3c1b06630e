"""Reads of the registry's tables, all strongly consistent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ml_control.aws.client import Clients, translate
from ml_control.aws.registry import keys, stored
from ml_control.aws.registry.known import Key, Known
from ml_control.aws.registry.schema_check import diagnosed
from ml_control.aws.registry.sending import Waits
from ml_control.aws.registry.stored import Attributes
from ml_control.aws.schema import KEYS
from ml_control.errors import Retryable
from ml_control.lake import Lake
from ml_control.ports import Item, Table

_Place = tuple[Table, str, str]  # a table and the stored keys in it
_PAGE = 1000  # items of one page, as much as a reader may be behind
_NEWEST = 50  # of the first page from the end: who reads backwards seldom reads on
_BATCH = 100  # keys of one BatchGetItem, DynamoDB's own limit


class Reader:
    """Items and entries of the index as DynamoDB has them, and as the port's items."""

    def __init__(self, clients: Clients, lake: Lake, known: Known, patience: float) -> None:
        self._clients = clients
        self._lake = lake
        self._known = known
        self._patience = patience

    @contextmanager
    def errors(self, object: str) -> Iterator[None]:
        """DynamoDB's errors of this block as ours; an unusable table names its setting."""
        try:
            yield
        except Exception as error:
            known = diagnosed(self._clients, error) or translate(error, object)
            if known is None:
                raise
            raise known from error

    def get(self, table: Table, pk: str, sk: str) -> Item | None:
        """One item, in one request."""
        with self.errors(f"registry table {table}"):
            answer = self._clients.client("dynamodb").get_item(
                TableName=self._clients.settings.table(table),
                Key=stored.item_key(table, pk, sk),
                ConsistentRead=True,
            )
        found = answer.get("Item")
        if not found:
            self._known.set((table, pk, sk), stored.ABSENT)
            return None
        return self.item(table, found)

    def item(self, table: Table, found: Mapping[str, Any]) -> Item:
        """The port's item, whose state is remembered."""
        item = stored.item_of(self._lake, table, found)
        self._known.set((table, item.pk, item.sk), stored.State(item.version, item.index))
        return item

    def many(self, wanted: Iterable[Key], *, bodies: bool) -> dict[Key, Attributes]:
        """The items that are there, in one request for a hundred; without bodies if so asked."""
        places = {(key[0], *_values(stored.item_key(*key))): key for key in wanted}
        return {places[place]: found for place, found in self._at(places, bodies=bodies)}

    def entries_of(self, table: Table, items: Iterable[Item]) -> dict[tuple[str, str], Attributes]:
        """The entries, without bodies, of items that have index values, by (pk, sk)."""
        places = {
            (table, *_values(stored.old_entry_key(table, i.index or "", i.pk, i.sk))): (i.pk, i.sk)
            for i in items
        }
        return {places[place]: found for place, found in self._at(places, bodies=False)}

    def _at(self, places: Iterable[_Place], *, bodies: bool) -> Iterator[tuple[_Place, Attributes]]:
        every = list(places)
        for start in range(0, len(every), _BATCH):
            yield from self._batch(every[start : start + _BATCH], bodies=bodies)

    def _batch(self, places: list[_Place], *, bodies: bool) -> Iterator[tuple[_Place, Attributes]]:
        request: dict[str, Any] = {}
        tables = {self._clients.settings.table(table): table for table in KEYS}
        for table, pk, sk in places:
            names = KEYS[table]
            asked = request.setdefault(
                self._clients.settings.table(table), {"Keys": [], "ConsistentRead": True}
            )
            asked["Keys"].append({names[0]: {"S": pk}, names[1]: {"S": sk}})
            if not bodies:
                asked["ProjectionExpression"] = "#p, #s, #r, #i"
                asked["ExpressionAttributeNames"] = {
                    "#p": names[0],
                    "#s": names[1],
                    "#r": stored.VERSION,
                    "#i": stored.INDEX_VALUE,
                }
        waits = Waits(self._patience)
        while request:
            with self.errors("registry tables"):
                answer = self._clients.client("dynamodb").batch_get_item(RequestItems=request)
            for name, items in answer["Responses"].items():
                table = tables[name]
                for item in items:
                    yield (table, *(item[key]["S"] for key in KEYS[table])), item
            request = answer.get("UnprocessedKeys") or {}
            if request and not any(answer["Responses"].values()):
                waits.wait(
                    Retryable("registry tables", "DynamoDB reads nothing: throttled", "try again")
                )

    def items(
        self, table: Table, pk: str, prefix: str, *, reverse: bool, limit: int | None
    ) -> Iterator[Item]:
        """A partition's items by sort key, page by page."""
        begins = keys.prefix_key(prefix)
        for page, left in self._pages(
            table, keys.partition_key(pk), begins, limit, reverse=reverse
        ):
            found = (self.item(table, each) for each in page)
            yield from left(item for item in found if item.sk.startswith(prefix))

    def entries(
        self, table: Table, index: str, prefix: str, *, limit: int | None
    ) -> Iterator[Item]:
        """Items of an index value by sort key, page by page. What left it meanwhile is not told."""
        begins = keys.entry_prefix(prefix)
        for page, left in self._pages(table, keys.index_key(index), begins, limit):
            yield from left(
                item for item in self._resolved(table, index, page) if item.sk.startswith(prefix)
            )

    def _resolved(self, table: Table, index: str, page: list[Attributes]) -> Iterator[Item]:
        pointed = [
            (table, *stored.identity(table, each)) for each in page if stored.is_pointer(each)
        ]
        whole = self.many(pointed, bodies=True) if pointed else {}
        for each in page:
            if not stored.is_pointer(each):
                yield self.item(table, each)
                continue
            found = whole.get((table, *stored.identity(table, each)))
            if found is not None and stored.state_of(found).index == index:
                yield self.item(table, found)

    def _pages(
        self, table: Table, pk: str, begins: str, limit: int | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[Attributes], Callable[[Iterable[Item]], Iterator[Item]]]]:
        """Pages, each with what counts the items taken from it against the limit."""
        told = 0

        def left(items: Iterable[Item]) -> Iterator[Item]:
            nonlocal told
            for item in items:
                if limit is not None and told >= limit:
                    return
                told += 1
                yield item

        request = self._query(table, pk, begins)
        request["ScanIndexForward"] = not reverse
        most = _NEWEST if reverse else _PAGE
        while limit is None or told < limit:
            request["Limit"] = most if limit is None else min(_PAGE, limit - told)
            with self.errors(f"registry table {table}"):
                answer = self._clients.client("dynamodb").query(**request)
            yield answer["Items"], left
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
            most = _PAGE

    def count(self, table: Table, index: str) -> int:
        """How many entries an index value has: a request for each megabyte of them."""
        request = self._query(table, keys.index_key(index), "")
        request["Select"], count = "COUNT", 0
        while True:
            with self.errors(f"registry table {table}"):
                answer = self._clients.client("dynamodb").query(**request)
            count += int(answer["Count"])
            if "LastEvaluatedKey" not in answer:
                return count
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _query(self, table: Table, pk: str, begins: str) -> dict[str, Any]:
        names, values = {"#p": KEYS[table][0]}, {":p": {"S": pk}}
        condition = "#p = :p"
        if begins:
            names["#s"], values[":s"] = KEYS[table][1], {"S": begins}
            condition += " AND begins_with(#s, :s)"
        return {
            "TableName": self._clients.settings.table(table),
            "ConsistentRead": True,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }


def _values(key: Attributes) -> tuple[str, str]:
    pk, sk = (value["S"] for value in key.values())
    return pk, sk
