"""``ports.Tables`` over DynamoDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_control.aws.client import Clients
from ml_control.aws.registry.known import Known
from ml_control.aws.registry.reading import Reader
from ml_control.aws.registry.repair import Repair
from ml_control.aws.registry.schema_check import require_tables
from ml_control.aws.registry.writing import Writer
from ml_control.lake import Lake
from ml_control.ports import Check, Item, Put, Table
from ml_control.ports.tables import require_key, usable


class DynamoTables:
    """The registry in four DynamoDB tables; any number of threads may use one object.

    Every read is strongly consistent, the index's too, and every write is a transaction with the
    index inside. A body that no item takes is in the lake.
    """

    def __init__(self, clients: Clients, lake: Lake, patience: float = 30.0) -> None:
        """``patience``: seconds that a writer waits while others write the same items."""
        known = Known()
        self._clients = clients
        self._lake = lake
        self._patience = patience
        self._reader = Reader(clients, lake, known, patience)
        self._writer = Writer(clients, lake, known, self._reader, patience)

    def require_tables(self) -> None:
        """Raise ``InvalidSpec`` naming the setting of a table that is missing or keyed wrongly.

        A request that meets such a table raises it as well, so nothing need ask before.
        """
        require_tables(self._clients)

    def repair(self) -> int:
        """Read every item and make the index agree with them; gives how many entries did not.

        After the tables were restored to a point in time. Raises ``PlatformFailed`` or ``Unknown``
        for an item that is not as it was written.
        """
        return Repair(self._clients, self._lake, self._reader, self._patience).index()

    def close(self) -> None:
        """Nothing is held open."""

    def get(self, table: Table, pk: str, sk: str) -> Item | None:
        """See ``ports.Tables``."""
        return self._reader.get(table, pk, sk) if pk and sk else None

    def query(
        self,
        table: Table,
        pk: str,
        *,
        prefix: str = "",
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Item]:
        """See ``ports.Tables``."""
        if pk:
            yield from self._reader.items(table, pk, prefix, reverse=reverse, limit=limit)

    def query_index(
        self, table: Table, index: str, *, prefix: str = "", limit: int | None = None
    ) -> Iterator[Item]:
        """See ``ports.Tables``."""
        yield from self._reader.entries(table, index, prefix, limit=limit)

    def count_index(self, table: Table, index: str) -> int:
        """See ``ports.Tables``."""
        return self._reader.count(table, index)

    def transact(self, writes: Sequence[Put | Check]) -> None:
        """See ``ports.Tables``."""
        self._writer.together(list(usable(writes)))

    def write_each(self, writes: Sequence[Put]) -> list[bool]:
        """See ``ports.Tables``."""
        for write in writes:
            require_key(write.item.pk, write.item.sk)
        return self._writer.each(writes)
