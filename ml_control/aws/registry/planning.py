"""What a write becomes in DynamoDB: its conditions, and the entries of the index beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_control.aws.registry import stored
from ml_control.aws.registry.known import Key
from ml_control.aws.registry.stored import ABSENT, Attributes, Body, State
from ml_control.errors import Conflict, InvalidSpec
from ml_control.lake import Lake
from ml_control.ports import Check, Item, Put

MOST_ACTIONS = 100  # of one transaction, DynamoDB's own limit
MOST_BYTES = 3_500_000  # of what one transaction writes; DynamoDB's limit is 4 MB with the rest
Action = dict[str, Any]


@dataclass
class Planned:
    """A write, its place in the request, and what is known of its item: None = not yet."""

    place: int
    write: Put | Check
    body: Body | None  # of a Put
    state: State | None = None
    found: Attributes | None = field(default=None, repr=False)  # of a Check: its item as it is

    @property
    def key(self) -> Key:
        """The item that it is about."""
        if isinstance(self.write, Put):
            return self.write.table, self.write.item.pk, self.write.item.sk
        return self.write.table, self.write.pk, self.write.sk

    @property
    def object(self) -> str:
        """The item, as errors name it."""
        return f"{self.key[1]} {self.key[2]}"

    @property
    def holds(self) -> bool:
        """Whether a put's condition holds in the state that is known."""
        expect = self.write.expect if isinstance(self.write, Put) else None
        return expect is None or self.state is None or self.state.version == expect

    @property
    def after(self) -> State:
        """The state that a put leaves behind."""
        assert isinstance(self.write, Put)  # noqa: S101 - a Check leaves what it found
        assert self.state is not None  # noqa: S101 - known before it is sent
        return State(self.state.version + 1, self.write.item.index)


def planned(place: int, write: Put | Check) -> Planned:
    """A write as it will be sent. A put that expects no item knows all there is to know."""
    if isinstance(write, Check):
        return Planned(place, write, None)
    known = ABSENT if write.expect == 0 else None
    return Planned(place, write, stored.body_of(write.item), known)


def moved(object: str) -> Conflict:
    """A put's condition did not hold."""
    return Conflict(
        object, "it was changed by someone else meanwhile", "read it again and decide anew"
    )


def require(check: Check, item: Item | None) -> None:
    """Raise ``Conflict`` when the check does not hold for the item."""
    object = f"{check.pk} {check.sk}"
    if item is None:
        raise Conflict(object, "it is not there", "read again and decide anew")
    for name, value in check.equals.items():
        if item.body.get(name) != value:
            raise Conflict(
                object,
                f"{name} is {item.body.get(name)!r}, not {value!r}",
                "someone else took over; read again and decide anew",
            )


def count_of(plan: Planned) -> int:
    """How many actions a write is."""
    if isinstance(plan.write, Check) or plan.state is None:
        return 1
    old, new = plan.state.index, plan.write.item.index
    return 1 + (old is not None and old != new) + (new is not None)


def size_of(plan: Planned) -> int:
    """About how many bytes a write is; never less."""
    if plan.body is None:
        return 0
    return sum(stored.size_of(attributes) for attributes in _written(plan))


def actions_of(plan: Planned, name: str, *, tell: bool) -> list[Action]:
    """The actions of a write in the DynamoDB table of this name, the conditional one first.

    ``tell``: what was there instead is to be told when the condition does not hold.
    """
    told = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} if tell else {}
    state = plan.state or ABSENT
    condition = _condition(state, exactly=True)
    if isinstance(plan.write, Check):
        return [condition_check(plan.key, name, state, **told)]
    item, *entry = _written(plan)
    actions: list[Action] = [{"Put": {"TableName": name, "Item": item, **condition, **told}}]
    if state.index is not None and state.index != plan.write.item.index:
        table, pk, sk = plan.key
        old = stored.old_entry_key(table, state.index, pk, sk)
        actions.append({"Delete": {"TableName": name, "Key": old}})
    return actions + [{"Put": {"TableName": name, "Item": each}} for each in entry]


def condition_check(key: Key, name: str, state: State, **told: str) -> Action:
    """The action that an item has this version, or is absent."""
    condition = _condition(state, exactly=False)
    place = stored.item_key(*key)
    return {"ConditionCheck": {"TableName": name, "Key": place, **condition, **told}}


def fit(plans: Sequence[Planned], lake: Lake) -> None:
    """Put bodies into the lake, the largest first, until one transaction takes all writes.

    Raises ``InvalidSpec`` when it has too many actions all the same.
    """
    actions = sum(count_of(plan) for plan in plans)
    if actions > MOST_ACTIONS:
        raise InvalidSpec(
            plans[-1].object,
            f"{len(plans)} writes with their index values are {actions} actions of a transaction; "
            f"DynamoDB takes {MOST_ACTIONS}",
            "write in several transactions",
        )
    total = sum(size_of(plan) for plan in plans)
    bodies = [plan for plan in plans if plan.body is not None]
    for plan in sorted(bodies, key=size_of, reverse=True):
        if total <= MOST_BYTES:
            return
        total -= size_of(plan)
        _spill(plan, lake)
        total += size_of(plan)


def inline(plan: Planned, lake: Lake) -> None:
    """Put a body that no item takes into the lake."""
    if plan.body is not None and plan.body.size > stored.INLINE:
        _spill(plan, lake)


def _spill(plan: Planned, lake: Lake) -> None:
    if plan.body is not None:
        stored.spill(lake, plan.write.table, plan.body)


def _written(plan: Planned) -> list[Attributes]:
    """The item, and its entry where it has an index value."""
    write, version = plan.write, (plan.state or ABSENT).version + 1
    if not isinstance(write, Put) or plan.body is None:
        return []
    found = [stored.item_attributes(write.table, write.item, plan.body, version)]
    if write.item.index is not None:
        found.append(stored.entry_attributes(write.table, write.item, plan.body, version))
    return found


def _condition(state: State, *, exactly: bool) -> Action:
    """That an item is in this state; of a Check's, the version alone."""
    names, values = {"#r": stored.VERSION}, {}
    if state.version == 0:
        text = "attribute_not_exists(#r)"
    else:
        text, values[":r"] = "#r = :r", {"N": str(state.version)}
        if exactly:
            names["#i"] = stored.INDEX_VALUE
            text += " AND attribute_not_exists(#i)"
            if state.index is not None:
                text, values[":i"] = "#r = :r AND #i = :i", {"S": state.index}
    found: Action = {"ConditionExpression": text, "ExpressionAttributeNames": names}
    return {**found, "ExpressionAttributeValues": values} if values else found
