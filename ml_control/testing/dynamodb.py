"""DynamoDB's transactions on moto as DynamoDB makes them.

moto checks and writes action by action, puts whole tables back when one fails, together with what
others wrote meanwhile, and does not know request tokens. With :func:`atomic_transactions`
conditions are checked before anything is written, requests do not mix, and a token stands for one
transaction.
"""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

_LOCK = threading.RLock()
_done: dict[str, str] = {}  # what was done by token


def atomic_transactions() -> None:
    """Correct moto in this process, for every server and mock of it. Harmless when repeated."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.responses import DynamoHandler

    if DynamoDBBackend.transact_write_items is _transact:
        return
    call, transact = DynamoHandler.call_action, DynamoHandler.transact_write_items

    def call_action(self: Any) -> Any:
        with _LOCK:
            return call(self)

    def transact_write_items(self: Any) -> Any:
        from moto.core.responses import ActionResult
        from moto.dynamodb.exceptions import DynamodbException

        token = self.body.get("ClientRequestToken")
        asked = json.dumps(self.body["TransactItems"], sort_keys=True, default=repr)
        known = _done.get(token) if token else None
        if known is not None and known != asked:
            raise DynamodbException(
                "com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException",
                "the token was used with other parameters",
            )
        if known is not None:
            return ActionResult({"ConsumedCapacity": [], "ItemCollectionMetrics": {}})
        answer = transact(self)
        if token:
            _done[token] = asked
        return answer

    DynamoHandler.call_action = call_action  # type: ignore[method-assign]
    DynamoHandler.transact_write_items = transact_write_items  # type: ignore[method-assign]
    DynamoDBBackend.transact_write_items = _transact  # type: ignore[method-assign]


def _transact(self: Any, transact_items: list[dict[str, Any]]) -> None:
    from moto.dynamodb.exceptions import (
        MultipleTransactionsException,
        TooManyTransactionsException,
        TransactionCanceledException,
    )

    if len(transact_items) > 100:
        raise TooManyTransactionsException
    keys = [_key(self, action) for action in transact_items]
    if len({json.dumps(key, sort_keys=True) for key in keys}) != len(keys):
        raise MultipleTransactionsException
    reasons = [_reason(self, *pair) for pair in zip(transact_items, keys, strict=True)]
    if any(code for code, _, _ in reasons):
        raise TransactionCanceledException(reasons)
    before = [copy.deepcopy(self.get_item(name, key)) for name, key in keys]
    done = 0
    try:
        for action, (name, key) in zip(transact_items, keys, strict=True):
            _write(self, action, name, key)
            done += 1
    except Exception as error:
        for (name, key), item in list(zip(keys, before, strict=True))[: done + 1]:
            self.delete_item(name, key)
            if item is not None:
                self.put_item(name, item.to_json()["Attributes"])
        refused: list[Any] = [(None, None, None)] * len(keys)
        refused[done] = ("ValidationError", str(getattr(error, "message", error)), None)
        raise TransactionCanceledException(refused) from error


def _key(self: Any, action: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    op = next(iter(action.values()))
    name, table = op["TableName"], self.get_table(op["TableName"])
    names = [name for name in (table.hash_key_attr, table.range_key_attr) if name]
    return name, {each: (op["Item"] if "Item" in op else op["Key"])[each] for each in names}


def _reason(self: Any, action: dict[str, Any], where: tuple[str, dict[str, Any]]) -> Any:
    from moto.dynamodb.comparisons import get_filter_expression

    op = next(iter(action.values()))
    if op.get("ConditionExpression") is None:
        return None, None, None
    current = self.get_item(*where)
    condition = get_filter_expression(
        op["ConditionExpression"],
        op.get("ExpressionAttributeNames"),
        op.get("ExpressionAttributeValues"),
    )
    if condition.expr(current):
        return None, None, None
    told = op.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and current is not None
    item = current.to_json()["Attributes"] if told else None
    return "ConditionalCheckFailed", "The conditional request failed", item


def _write(self: Any, action: dict[str, Any], name: str, key: dict[str, Any]) -> None:
    kind, op = next(iter(action.items()))
    if kind == "Put":
        self.put_item(name, op["Item"])
    elif kind == "Delete":
        self.delete_item(name, key)
    elif kind == "Update":
        self.update_item(
            name,
            key,
            update_expression=op["UpdateExpression"],
            expression_attribute_names=op.get("ExpressionAttributeNames"),
            expression_attribute_values=op.get("ExpressionAttributeValues"),
        )
