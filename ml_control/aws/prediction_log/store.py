"""The table as the log uses it: consistent reads in few requests, one kind of transaction."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ml_control.aws.client import Clients, code_of, translated
from ml_control.aws.prediction_log.keys import Key
from ml_control.aws.prediction_log.values import Item, text
from ml_control.aws.schema import KEYS
from ml_control.errors import Retryable

SUBJECT, ITEM = KEYS["control-ledger"]
ACTIONS = 100  # that a transaction may have
_GET, _WRITE = 100, 25  # items of one request
_MOST_TRIES = 12
_MOVED = "ConditionalCheckFailed"
# Nothing was done, and the same may work in a moment. A TransactionInProgressException is none of
# these: an earlier try of the same request is under way, and will be done or not.
_BUSY = frozenset(
    {
        "TransactionConflict",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
        "TransactionConflictException",
    }
)


class Refused(Exception):
    """A transaction that changed nothing: ``moved`` when the head was not as expected, and then
    ``head`` is its item; ``taken`` when another item's condition did not hold; else it was busy.
    """

    def __init__(
        self, *, moved: bool = False, taken: bool = False, head: Item | None = None
    ) -> None:
        super().__init__("refused")
        self.moved, self.taken, self.head = moved, taken, head


def pause(attempt: int) -> None:
    """Wait before another attempt (from 0): each time longer, and never in step with others."""
    time.sleep(random.uniform(0.0, min(0.5, 0.01 * 2**attempt)))  # noqa: S311 - no secret


def key_of(item: Item) -> Key:
    """Where an item is."""
    return item[SUBJECT]["S"], item[ITEM]["S"]


def key_item(key: Key) -> Item:
    """A key as DynamoDB takes it."""
    return {SUBJECT: text(key[0]), ITEM: text(key[1])}


class Store:
    """The items of the prediction log. Every call raises our errors, about ``object``."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.table = clients.settings.table("control-ledger")
        self.object = f"prediction log in {self.table}"

    @property
    def _client(self) -> Any:
        return self._clients.client("dynamodb")

    def get(self, keys: Iterable[Key]) -> dict[Key, Item]:
        """The items that are there."""
        left = [key_item(key) for key in dict.fromkeys(keys)]
        found: dict[Key, Item] = {}
        attempt = 0
        with translated(self.object):
            while left:
                now, left = left[:_GET], left[_GET:]
                asked = {self.table: {"Keys": now, "ConsistentRead": True}}
                answer = self._client.batch_get_item(RequestItems=asked)
                for item in answer["Responses"].get(self.table, ()):
                    found[key_of(item)] = item
                again = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
                left = [*again, *left]
                attempt = self._again(attempt, nothing=len(again) == len(now))
        return found

    def query(
        self, subject: str, first: str, last: str, *, backwards: bool = False, page: int = 0
    ) -> Iterator[Item]:
        """Items of a partition in order, from one sort key up to another, both among them."""
        asked: dict[str, Any] = {
            "TableName": self.table,
            "ConsistentRead": True,
            "ScanIndexForward": not backwards,
            "KeyConditionExpression": "#s = :s AND #i BETWEEN :first AND :last",
            "ExpressionAttributeNames": {"#s": SUBJECT, "#i": ITEM},
            "ExpressionAttributeValues": {
                ":s": text(subject), ":first": text(first), ":last": text(last)
            },
        }  # fmt: skip
        if page:
            asked["Limit"] = page
        while True:
            with translated(self.object):
                answer = self._client.query(**asked)
            yield from answer["Items"]
            if not (after := answer.get("LastEvaluatedKey")):
                return
            asked["ExclusiveStartKey"] = after

    def delete(self, keys: Sequence[Key]) -> None:
        """Delete items, each by itself."""
        left = [{"DeleteRequest": {"Key": key_item(key)}} for key in keys]
        attempt = 0
        with translated(self.object):
            while left:
                now, left = left[:_WRITE], left[_WRITE:]
                answer = self._client.batch_write_item(RequestItems={self.table: now})
                again = answer.get("UnprocessedItems", {}).get(self.table, [])
                left = [*again, *left]
                attempt = self._again(attempt, nothing=len(again) == len(now))

    def transact(self, actions: Sequence[dict[str, Any]], token: str) -> None:
        """Do all actions or none; the first one moves the head. Raises ``Refused``, or ours: after
        ``Retryable`` it may have been done, or may yet be done.
        """
        with translated(self.object):
            try:
                self._client.transact_write_items(
                    TransactItems=list(actions), ClientRequestToken=token
                )
            except Exception as error:
                code = code_of(error)
                if code in _BUSY:
                    raise Refused from error
                if code != "TransactionCanceledException":
                    raise
                reasons = getattr(error, "response", {}).get("CancellationReasons") or [{}]
                codes = [str(reason.get("Code", "None")) for reason in reasons]
                if codes[0] == _MOVED:
                    raise Refused(moved=True, head=reasons[0].get("Item")) from error
                if _MOVED in codes:
                    raise Refused(taken=True) from error
                if _BUSY.intersection(codes):
                    raise Refused from error
                raise

    def _again(self, attempt: int, *, nothing: bool) -> int:
        """Count the attempts that brought nothing. Raises ``Retryable`` when there are too many."""
        if not nothing:
            return 0
        if attempt >= _MOST_TRIES:
            raise Retryable(self.object, "DynamoDB throttles it", "wait, then do it again")
        pause(attempt)
        return attempt + 1
