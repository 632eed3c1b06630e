"""One SQLite file that several threads and processes write, with typed refusals."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ml_control.errors import PlatformFailed, Retryable

_WAL_PAGES = 4000  # written back together: what is put and soon removed is written once
_WAL_BYTES = 64 << 20


class Database:
    """A file in WAL. Each thread has its own connection; the file is made when first written.

    A process that goes on writing to a file which was removed or replaced would write into
    nothing, so the file is looked at in every transaction, and ``Retryable`` raised when it moved.
    """

    def __init__(self, path: Path, schema: str, patience: float = 30.0) -> None:
        """``schema``: statements that make what is absent. ``patience``: seconds that a writer
        waits for its turn.
        """
        self._path = path
        self._schema = schema
        self._patience = patience
        self._local = threading.local()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection | None]:
        """A connection to read with; None while there is no file."""
        with self._errors("read"):
            if getattr(self._local, "connection", None) is None and not self._path.exists():
                yield None
            else:
                yield self._connection()

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """A transaction: all or nothing. ``durable``: on disk at the end, also when power fails;
        else only what was durable before is certain then, and nothing is lost by a crash of ours.
        """
        with self._errors("written"):
            connection = self._connection()
            if self._local.durable is not durable:
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._local.durable = durable
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._require_same()  # it may have been replaced while we waited
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.ProgrammingError):  # closed, for it is another's file
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise

    def shrink(self, pages: int) -> None:
        """Give free pages back to the file system."""
        with self._errors("written"):
            # Not execute, which takes one step and so gives back one page.
            self._connection().executescript(f"PRAGMA incremental_vacuum({pages})")

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._require_same()
            return connection
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts only in a new file
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
            if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                connection.executescript(f"BEGIN IMMEDIATE; {self._schema}; COMMIT")
        except BaseException:
            connection.close()
            raise
        self._local.connection, self._local.file = connection, _identity(self._path)
        self._local.durable = True
        return connection

    def _require_same(self) -> None:
        if _identity(self._path) == self._local.file:
            return
        self.close()
        raise Retryable(
            str(self._path),
            "was replaced or removed while this process used it",
            "try again: it is opened anew",
        )

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            name, path = getattr(error, "sqlite_errorname", "") or "", str(self._path)
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise Retryable(
                    path, f"is locked: {error}", "try again; end stuck writers"
                ) from error
            raise PlatformFailed(
                path,
                f"could not be {what}: {error}",
                "free space or correct permissions, then retry; a damaged file needs a backup",
            ) from error
        except OSError as error:
            raise PlatformFailed(
                str(self._path),
                f"could not be {what}: {error.strerror or error}",
                "free space or correct permissions, then retry",
            ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
