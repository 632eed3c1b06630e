"""The registry's tables in one SQLite file.

WAL with ``BEGIN IMMEDIATE``: a writer waits for its turn instead of failing in mid-transaction,
as deferred transactions do by the million under six writers. No work happens inside one.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_control.errors import Conflict, PlatformFailed, Retryable
from ml_control.ports import TABLES, Check, Item, Put, Table

_PAGE = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS "{name}" (
  pk TEXT NOT NULL, sk TEXT NOT NULL, idx TEXT, version INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (pk, sk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS "{name}_idx" ON "{name}" (idx, sk) WHERE idx IS NOT NULL;
"""


class SqliteTables:
    """``ports.Tables`` over one file. Each thread and each process has its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors("opened"):
            connection = self._connection()
            known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if not {f"{name}_idx" for name in TABLES} <= known:
                connection.executescript("".join(_SCHEMA.format(name=name) for name in TABLES))

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
        return connection

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise Retryable(
                    str(self._path), f"registry is locked: {error}", "try again; end stuck writers"
                ) from error
            raise PlatformFailed(
                str(self._path), f"registry could not be {what}: {error}", "free space, then retry"
            ) from error
        except sqlite3.DatabaseError as error:
            raise PlatformFailed(
                str(self._path),
                f"registry could not be {what}: {error}",
                "restore registry.db from a backup; nothing was changed",
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors("written"):
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def get(self, table: Table, pk: str, sk: str) -> Item | None:
        """See ``ports.Tables``."""
        with self._errors("read"):
            row = (
                self._connection()
                .execute(
                    f'SELECT pk, sk, idx, version, body FROM "{table}" WHERE pk = ? AND sk = ?',  # noqa: S608 - a Literal
                    (pk, sk),
                )
                .fetchone()
            )
        return _item(row) if row else None

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
        yield from self._pages(table, "pk", pk, prefix, reverse=reverse, limit=limit)

    def query_index(
        self, table: Table, index: str, *, prefix: str = "", limit: int | None = None
    ) -> Iterator[Item]:
        """See ``ports.Tables``."""
        yield from self._pages(table, "idx", index, prefix, reverse=False, limit=limit)

    def _pages(
        self,
        table: Table,
        column: str,
        value: str,
        prefix: str,
        *,
        reverse: bool,
        limit: int | None,
    ) -> Iterator[Item]:
        order, beyond = ("DESC", "<") if reverse else ("ASC", ">")
        left = limit if limit is not None else -1
        # An upper bound above every string with this prefix keeps the scan inside the index.
        bounds = "AND sk >= ? AND sk < ?" if prefix else ""
        after: str | None = None
        after_pk = ""
        while left != 0:
            size = _PAGE if left < 0 else min(_PAGE, left)
            condition = f"AND (sk, pk) {beyond} (?, ?)" if after is not None else ""
            values: list[Any] = [value]
            values += [prefix, prefix + "\U0010ffff"] if prefix else []
            values += [after, after_pk] if after is not None else []
            with self._errors("read"):
                rows = (
                    self._connection()
                    .execute(
                        f'SELECT pk, sk, idx, version, body FROM "{table}" WHERE {column} = ? '  # noqa: S608
                        f"{bounds} {condition} ORDER BY sk {order}, pk {order} LIMIT {size}",
                        values,
                    )
                    .fetchall()
                )
            for row in rows:
                yield _item(row)
            if len(rows) < size:
                return
            after_pk, after = rows[-1][0], rows[-1][1]
            left = left - len(rows) if left > 0 else left

    def count_index(self, table: Table, index: str) -> int:
        """See ``ports.Tables``."""
        with self._errors("read"):
            row = (
                self._connection()
                .execute(f'SELECT COUNT(*) FROM "{table}" WHERE idx = ?', (index,))  # noqa: S608
                .fetchone()
            )
        return int(row[0])

    def transact(self, writes: Sequence[Put | Check]) -> None:
        """See ``ports.Tables``."""
        with self._transaction() as connection:
            for write in writes:
                if isinstance(write, Check):
                    _require(connection, write)
                elif not _put(connection, write):
                    raise Conflict(
                        f"{write.item.pk} {write.item.sk}",
                        "it was changed by someone else meanwhile",
                        "read it again and decide anew",
                    )

    def write_each(self, writes: Sequence[Put]) -> list[bool]:
        """See ``ports.Tables``."""
        with self._transaction() as connection:
            return [_put(connection, write) for write in writes]


def _item(row: tuple[str, str, str | None, int, str]) -> Item:
    pk, sk, index, version, text = row
    return Item(pk, sk, _body(pk, sk, text), index, version)


def _body(pk: str, sk: str, text: str) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise PlatformFailed(
            f"{pk} {sk}",
            f"the registry's record is no JSON: {error}",
            "restore registry.db from a backup; nothing was changed",
        ) from error
    return body


def _put(connection: sqlite3.Connection, write: Put) -> bool:
    item = write.item
    body = json.dumps(dict(item.body), ensure_ascii=False, separators=(",", ":"))
    table = write.table
    if write.expect == 0:
        cursor = connection.execute(
            f'INSERT INTO "{table}" VALUES (?, ?, ?, 1, ?) ON CONFLICT DO NOTHING',  # noqa: S608
            (item.pk, item.sk, item.index, body),
        )
    elif write.expect is None:
        cursor = connection.execute(
            f'INSERT INTO "{table}" VALUES (?, ?, ?, 1, ?) ON CONFLICT (pk, sk) DO UPDATE '  # noqa: S608
            "SET idx = excluded.idx, body = excluded.body, version = version + 1",
            (item.pk, item.sk, item.index, body),
        )
    else:
        cursor = connection.execute(
            f'UPDATE "{table}" SET idx = ?, body = ?, version = version + 1 '  # noqa: S608
            "WHERE pk = ? AND sk = ? AND version = ?",
            (item.index, body, item.pk, item.sk, write.expect),
        )
    return cursor.rowcount == 1


def _require(connection: sqlite3.Connection, check: Check) -> None:
    row = connection.execute(
        f'SELECT body FROM "{check.table}" WHERE pk = ? AND sk = ?',  # noqa: S608
        (check.pk, check.sk),
    ).fetchone()
    if row is None:
        raise Conflict(f"{check.pk} {check.sk}", "it is not there", "read again and decide anew")
    body = _body(check.pk, check.sk, row[0])
    for name, value in check.equals.items():
        if body.get(name) != value:
            raise Conflict(
                f"{check.pk} {check.sk}",
                f"{name} is {body.get(name)!r}, not {value!r}",
                "someone else took over; read again and decide anew",
            )
