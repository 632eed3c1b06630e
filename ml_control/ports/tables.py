"""The registry's storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ml_control.errors import InvalidSpec

MOST_WRITES = 100  # in one transaction, the smaller of the platforms' limits

Table = Literal["model-metadata", "training-metrics", "ab-test-config", "control-ledger"]
TABLES: tuple[Table, ...] = (
    "model-metadata",
    "training-metrics",
    "ab-test-config",
    "control-ledger",
)


@dataclass(frozen=True)
class Item:
    """One item of a table. ``version`` grows by one with every write of the item."""

    pk: str
    sk: str
    body: Mapping[str, Any]
    index: str | None = None  # items with the same index value can be listed, sorted by sk
    version: int = 0


@dataclass(frozen=True)
class Put:
    """Write an item. ``expect``: the version it must have now (0 = absent, None = any)."""

    table: Table
    item: Item
    expect: int | None


@dataclass(frozen=True)
class Check:
    """Require that an item exists and its body has these top-level values; writes nothing."""

    table: Table
    pk: str
    sk: str
    equals: Mapping[str, Any]


class Tables(Protocol):
    """The registry's storage: keyed items, conditional writes, one secondary index a table."""

    def get(self, table: Table, pk: str, sk: str) -> Item | None:
        """The item as last committed, or None."""
        ...

    def query(
        self,
        table: Table,
        pk: str,
        *,
        prefix: str = "",
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Item]:
        """Items of one partition key, sorted by sort key, whose sort key begins with prefix."""
        ...

    def query_index(
        self, table: Table, index: str, *, prefix: str = "", limit: int | None = None
    ) -> Iterator[Item]:
        """Items with this index value, sorted by sort key, whose sort key begins with prefix."""
        ...

    def count_index(self, table: Table, index: str) -> int:
        """How many items have this index value."""
        ...

    def transact(self, writes: Sequence[Put | Check]) -> None:
        """All writes or none. Raises ``Conflict`` naming the first condition that did not hold.

        At most ``MOST_WRITES``, each of another item, else ``InvalidSpec``. DynamoDB counts a
        write that leaves an index value or has one as one or two more: a caller whose writes have
        index values keeps below a third of it.
        """
        ...

    def write_each(self, writes: Sequence[Put]) -> list[bool]:
        """Each write on its own, any number of them; False where its condition did not hold.

        Writes of one item are made in their order. A process that dies meanwhile may have made
        some of them.
        """
        ...


def usable(writes: Iterable[Put | Check]) -> Iterator[Put | Check]:
    """The writes of one transaction, one by one.

    Raises ``InvalidSpec`` at the first that no platform can write with those before it.
    """
    seen: set[tuple[str, str, str]] = set()
    for count, write in enumerate(writes):
        target = write.item if isinstance(write, Put) else write
        require_key(target.pk, target.sk)
        if count == MOST_WRITES:
            raise InvalidSpec(
                f"{target.pk} {target.sk}",
                f"is one of more than {MOST_WRITES} writes of a transaction",
                "write in several transactions",
            )
        key = (write.table, target.pk, target.sk)
        if key in seen:
            raise InvalidSpec(
                f"{target.pk} {target.sk}",
                "is written or checked twice in a transaction",
                "say once what it must be and what it becomes",
            )
        seen.add(key)
        yield write


def require_key(pk: str, sk: str) -> None:
    """Raise ``InvalidSpec`` for a key that cannot be written."""
    if not pk or not sk:
        raise InvalidSpec(f"{pk!r} {sk!r}", "a part of the key is empty", "name both parts")
