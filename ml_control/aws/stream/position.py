"""Where a pipeline's consumer stands, and the records that it set aside, as the registry has them.

    control-ledger  stream#<pipeline>  position            one item: what of each shard is settled
                                       record#<sequence>   a record that nobody could process

Every change is one transaction on the first item's version, so that of two consumers one decides
anew. A record set aside keeps its data, for Kinesis forgets it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any, Literal

from ml_control.aws.stream.shards import HORIZON, Place
from ml_control.ports import Item, Parked, Put, StreamRecord, Table

TABLE: Table = "control-ledger"
_KEY = "position"
State = Literal["parked", "again", "settled"]


@dataclass
class Settled:
    """What is settled of a shard: all up to ``reached``, but those of ``open``."""

    reached: int = HORIZON.number
    open: list[int] = field(default_factory=list)
    as_of: float | None = None  # all that arrived before then is settled or waits in ``open``
    finished: bool = False  # closed, and nothing of it is left

    @property
    def begin(self) -> Place:
        """Where reading begins, so that nothing is left out."""
        return Place(self.open[0], after=False) if self.open else Place(self.reached, after=True)

    def has(self, number: int) -> bool:
        """Whether a record of this number is settled."""
        return number <= self.reached and number not in self.open


@dataclass
class Position:
    """A pipeline's position. ``failing``: tries and time of the last, by sequence number."""

    shards: dict[str, Settled] = field(default_factory=dict)
    failing: dict[int, tuple[int, float]] = field(default_factory=dict)
    parked: int = 0
    again: int = 0  # parked ones that wait again
    version: int = 0

    @property
    def as_of(self) -> float | None:
        """The earliest of its shards' times; a shard that it does not know is not older."""
        known = [one.as_of for one in self.shards.values() if one.as_of is not None]
        return min(known) if known else None


def read_position(item: Item | None) -> Position:
    """The position that an item holds; a fresh one without an item."""
    if item is None:
        return Position()
    body = item.body
    shards = {
        id: Settled(
            int(one["reached"]), [int(n) for n in one["open"]], one["as_of"], one["finished"]
        )
        for id, one in body["shards"].items()
    }
    failing = {int(one): (tries, at) for one, (tries, at) in body["failing"].items()}
    return Position(shards, failing, body["parked"], body["again"], item.version)


def put_position(pipeline: str, position: Position) -> Put:
    """The write of a position over the one that it was read from."""
    body: dict[str, Any] = {
        "shards": {
            id: {
                "reached": str(one.reached),  # numbers of 56 digits are no numbers of JSON
                "open": [str(number) for number in one.open],
                "as_of": one.as_of,
                "finished": one.finished,
            }
            for id, one in position.shards.items()
        },
        "failing": {str(one): list(value) for one, value in position.failing.items()},
        "parked": position.parked,
        "again": position.again,
    }
    return Put(TABLE, Item(pk(pipeline), _KEY, body), position.version)


def put_aside(state: State, parked: Parked) -> Put:
    """The write of a record that was set aside; what is settled leaves its data behind."""
    record = parked.record
    data = "" if state == "settled" else b64encode(record.data).decode()
    body = {
        "sequence": str(record.sequence),
        "state": state,
        "key": record.key,
        "data": data,
        "put_at": record.at,
        "reason": parked.reason,
        "tries": parked.tries,
        "parked_at": parked.at,
    }
    index = None if state == "settled" else index_of(record.pipeline, state)
    item = Item(pk(record.pipeline), aside_key(record.sequence), body, index)
    return Put(TABLE, item, None)  # the position's version decides


def read_aside(pipeline: str, item: Item) -> tuple[State, Parked]:
    """A record that was set aside, and what became of it."""
    body = item.body
    record = StreamRecord(
        pipeline, body["key"], b64decode(body["data"]), int(body["sequence"]), body["put_at"]
    )
    return body["state"], Parked(record, body["reason"], body["tries"], body["parked_at"])


def pk(pipeline: str) -> str:
    """The partition key of a pipeline's stream."""
    return f"stream#{pipeline}"


def position_key() -> str:
    """The sort key of the position."""
    return _KEY


def aside_key(sequence: int) -> str:
    """The sort key of a record: sorted as numbers are."""
    return f"record#{sequence:080d}"


def index_of(pipeline: str, state: State) -> str:
    """The index value of the records in a state."""
    return f"stream-{state}#{pipeline}"
