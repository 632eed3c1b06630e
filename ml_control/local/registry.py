"""The registry's tables in one SQLite file.

WAL with ``BEGIN IMMEDIATE``: a writer waits for its turn instead of failing in mid-transaction,
as deferred transactions do by the million under six writers. No work happens inside one.

Every record carries a checksum, because SQLite finds a damaged page only where the damage hits its
own structure. A file that was lost, emptied, replaced or damaged is refused: what is true must
never begin again from nothing while the lake still holds what it was about.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ml_control.errors import Conflict, PlatformFailed, Retryable
from ml_control.ports import TABLES, Check, Item, Put, Table
from ml_control.ports.tables import require_key, usable

_PAGE = 1000
_COLUMNS = "pk, sk, idx, version, body, sum"
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS "{name}" (
  pk TEXT NOT NULL, sk TEXT NOT NULL, idx TEXT, version INTEGER NOT NULL, body TEXT NOT NULL,
  sum INTEGER, PRIMARY KEY (pk, sk)
) WITHOUT ROWID""",
    'CREATE INDEX IF NOT EXISTS "{name}_idx" ON "{name}" (idx, sk) WHERE idx IS NOT NULL',
)
# What the file system refuses; every other failure of SQLite means that the file is damaged.
_REFUSED = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
RESTORE = "restore it with 'ml-control restore FILE'; nothing was changed"


class SqliteTables:
    """``ports.Tables`` over one file. Each thread and each process has its own connection."""

    def __init__(self, path: Path, data: Path | None = None, patience: float = 30.0) -> None:
        """``data``: the folder of what the registry is about. Where that holds something, an
        absent or empty registry was lost, and ``PlatformFailed`` is raised instead of a new one
        being made. ``patience``: seconds that a writer waits for its turn.
        """
        self._path = path
        self._local = threading.local()
        self.patience = patience
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _has_content(path):
            self._refuse_lost(data)
        with self._errors("opened"):
            if not _is_whole(self._connection(create=True)):
                self._refuse_lost(data)
                self._create()

    def _create(self) -> None:
        """Make the tables that are absent, all or none, and what later versions added."""
        with self._transaction() as connection:
            for name in TABLES:
                for statement in _SCHEMA:
                    connection.execute(statement.format(name=name))
                known = {row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')}
                if "sum" not in known:
                    connection.execute(f'ALTER TABLE "{name}" ADD COLUMN sum INTEGER')

    def _refuse_lost(self, data: Path | None) -> None:
        """Refuse to begin anew beside what an earlier registry was about."""
        left = next((path for path in data.glob("*/*")), None) if data else None
        if left is None or _has_tables(self._path):  # made by another process meanwhile
            return
        raise PlatformFailed(
            str(self._path),
            f"is missing or empty, but {data} holds what an earlier registry was about",
            f"{RESTORE}. To begin anew, move {data} away as well",
        )

    def _connection(self, *, create: bool = False) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._require_same()
            return connection
        if not create and not self._path.exists():
            raise PlatformFailed(str(self._path), "is not there any more", RESTORE)
        connection = sqlite3.connect(self._path, timeout=self.patience, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
        self._local.connection, self._local.file = connection, _identity(self._path)
        return connection

    def _require_same(self) -> None:
        """Our connection is to the file that has the name now. Raises ``Retryable`` once if not:
        what is being done was decided on another registry; what is done next reads the new one.
        """
        if _identity(self._path) == self._local.file:
            return
        self.close()
        raise Retryable(
            str(self._path),
            "was replaced or removed while this process used it",
            "try again: it is read anew",
        )

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            name, path = getattr(error, "sqlite_errorname", "") or "", str(self._path)
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise Retryable(
                    path, f"registry is locked: {error}", "try again; end stuck writers"
                ) from error
            step = "free space or correct permissions, then retry"
            raise PlatformFailed(
                path,
                f"registry could not be {what}: {error}",
                step if name.startswith(_REFUSED) else RESTORE,
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors("written"):
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._require_same()  # again: it may have been replaced while we waited
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.ProgrammingError):  # closed, for it is another's file
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
                    f'SELECT {_COLUMNS} FROM "{table}" WHERE pk = ? AND sk = ?',  # noqa: S608 - a Literal
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
                        f'SELECT {_COLUMNS} FROM "{table}" WHERE {column} = ? '  # noqa: S608
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
            for write in usable(writes):
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
        for write in writes:
            require_key(write.item.pk, write.item.sk)
        with self._transaction() as connection:
            return [_put(connection, write) for write in writes]


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _is_whole(connection: sqlite3.Connection) -> bool:
    """Whether all tables are there, in today's form."""
    known = {
        row[0]: row[1] or "" for row in connection.execute("SELECT name, sql FROM sqlite_master")
    }
    return all(f"{name}_idx" in known and "sum INTEGER" in known.get(name, "") for name in TABLES)


def _has_tables(path: Path) -> bool:
    """Whether any of the tables is in the file. A file that is no registry has none."""
    if not _has_content(path):
        return False
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        finally:
            connection.close()
        return bool(known & set(TABLES))
    return True  # damaged: said so when it is read


def _sum(pk: str, sk: str, index: str | None, body: str) -> int:
    return zlib.crc32("\0".join((pk, sk, index or "", body)).encode("utf-8", "surrogatepass"))


def _item(row: tuple[str, str, str | None, int, str, int | None]) -> Item:
    pk, sk, index, version, text, checksum = row
    return Item(pk, sk, _body(pk, sk, index, text, checksum), index, version)


def _body(pk: str, sk: str, index: str | None, text: str, checksum: int | None) -> dict[str, Any]:
    """The record's JSON; one that an earlier version wrote has no checksum."""
    why = ""
    if checksum is not None and checksum != _sum(pk, sk, index, text):
        why = "it is not as it was written: its checksum differs"
    else:
        try:
            body: dict[str, Any] = json.loads(text)
        except ValueError as error:
            why = f"it is no JSON: {error}"
        else:
            return body
    raise PlatformFailed(f"{pk} {sk}", f"the registry's record is damaged: {why}", RESTORE)


def _put(connection: sqlite3.Connection, write: Put) -> bool:
    item = write.item
    body = json.dumps(dict(item.body), ensure_ascii=False, separators=(",", ":"))
    table, checksum = write.table, _sum(item.pk, item.sk, item.index, body)
    if write.expect is None or write.expect == 0:
        conflict = (
            "NOTHING"
            if write.expect == 0
            else "UPDATE SET idx = excluded.idx, body = excluded.body, sum = excluded.sum, "
            "version = version + 1"
        )
        cursor = connection.execute(
            f'INSERT INTO "{table}" ({_COLUMNS}) VALUES (?, ?, ?, 1, ?, ?) '  # noqa: S608
            f"ON CONFLICT (pk, sk) DO {conflict}",
            (item.pk, item.sk, item.index, body, checksum),
        )
    else:
        cursor = connection.execute(
            f'UPDATE "{table}" SET idx = ?, body = ?, sum = ?, version = version + 1 '  # noqa: S608
            "WHERE pk = ? AND sk = ? AND version = ?",
            (item.index, body, checksum, item.pk, item.sk, write.expect),
        )
    return cursor.rowcount == 1


def _require(connection: sqlite3.Connection, check: Check) -> None:
    row = connection.execute(
        f'SELECT {_COLUMNS} FROM "{check.table}" WHERE pk = ? AND sk = ?',  # noqa: S608
        (check.pk, check.sk),
    ).fetchone()
    if row is None:
        raise Conflict(f"{check.pk} {check.sk}", "it is not there", "read again and decide anew")
    body = _item(row).body
    for name, value in check.equals.items():
        if body.get(name) != value:
            raise Conflict(
                f"{check.pk} {check.sk}",
                f"{name} is {body.get(name)!r}, not {value!r}",
                "someone else took over; read again and decide anew",
            )
