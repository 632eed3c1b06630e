"""The tables of the prediction log, its connections, and SQLite's errors as ours.

Every pipeline has a range of row ids of its own, ``number * SPAN`` and up, so that reading one
pipeline in order needs no index beside the table, whatever the others log meanwhile. The first
offset of a new file is taken from the clock: a log that was lost and made anew then goes on beyond
every offset that a reader has noted.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_control.errors import Retryable, Unknown

SPAN = 1 << 44
_A_SECOND = 1 << 13  # offsets that a second of the clock stands for
SCHEMA = """
CREATE TABLE pipelines (
  no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL, next_join INTEGER
  NOT NULL, waiting INTEGER NOT NULL DEFAULT 0, expired INTEGER NOT NULL DEFAULT 0,
  unjoinable INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE rollouts (
  no INTEGER PRIMARY KEY, pipeline INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (pipeline, id)
);
CREATE TABLE contexts (
  no INTEGER PRIMARY KEY, pipeline INTEGER NOT NULL, rollout INTEGER NOT NULL,
  assigned TEXT NOT NULL, challenger INTEGER NOT NULL, share REAL NOT NULL, served TEXT NOT NULL,
  model_version TEXT NOT NULL,
  UNIQUE (pipeline, rollout, assigned, challenger, share, served, model_version)
);
CREATE TABLE predictions (
  id INTEGER PRIMARY KEY, pipeline INTEGER NOT NULL, request_id TEXT NOT NULL,
  context INTEGER NOT NULL, entity_id TEXT NOT NULL, at REAL NOT NULL, latency REAL NOT NULL,
  rows INTEGER NOT NULL, failed INTEGER NOT NULL, failure TEXT NOT NULL, answers BLOB NOT NULL,
  UNIQUE (pipeline, request_id)
);
CREATE TABLE records (id INTEGER PRIMARY KEY, records BLOB NOT NULL);
CREATE TABLE exposures (
  rollout INTEGER NOT NULL, entity_id TEXT NOT NULL, judged INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (rollout, entity_id)
) WITHOUT ROWID;
CREATE TABLE arms (
  rollout INTEGER NOT NULL, challenger INTEGER NOT NULL, entities INTEGER NOT NULL,
  expected REAL NOT NULL, PRIMARY KEY (rollout, challenger)
) WITHOUT ROWID;
CREATE TABLE arm_requests (
  rollout INTEGER NOT NULL, challenger INTEGER NOT NULL, bucket INTEGER NOT NULL,
  requests INTEGER NOT NULL, errors INTEGER NOT NULL, last_at REAL NOT NULL,
  PRIMARY KEY (rollout, challenger, bucket)
) WITHOUT ROWID;
CREATE TABLE minutes (
  pipeline INTEGER NOT NULL, minute INTEGER NOT NULL, requests INTEGER NOT NULL,
  PRIMARY KEY (pipeline, minute)
) WITHOUT ROWID;
CREATE TABLE variant_minutes (
  pipeline INTEGER NOT NULL, minute INTEGER NOT NULL, variant TEXT NOT NULL,
  bucket INTEGER NOT NULL, requests INTEGER NOT NULL, errors INTEGER NOT NULL,
  PRIMARY KEY (pipeline, minute, variant, bucket)
) WITHOUT ROWID;
CREATE TABLE waiting (
  pipeline INTEGER NOT NULL, request_id TEXT NOT NULL, idx INTEGER NOT NULL, value TEXT NOT NULL,
  at REAL NOT NULL, noted REAL NOT NULL, PRIMARY KEY (pipeline, request_id, idx)
) WITHOUT ROWID;
CREATE INDEX waiting_noted ON waiting (pipeline, noted);
CREATE TABLE joined (
  id INTEGER PRIMARY KEY, prediction INTEGER NOT NULL, idx INTEGER NOT NULL,
  context INTEGER NOT NULL, request_id TEXT NOT NULL, entity_id TEXT NOT NULL, label TEXT,
  score REAL, outcome TEXT NOT NULL, predicted_at REAL NOT NULL, told_at REAL NOT NULL,
  noted REAL NOT NULL, first INTEGER NOT NULL, UNIQUE (prediction, idx)
);
CREATE TABLE set_aside (
  id INTEGER PRIMARY KEY, pipeline INTEGER NOT NULL, request_id TEXT NOT NULL,
  idx INTEGER NOT NULL, value TEXT NOT NULL, at REAL NOT NULL, noted REAL NOT NULL,
  reason TEXT NOT NULL
);
"""
VERSION = 1
_PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", "cache_size=-65536", "wal_autocheckpoint=4000",
    "journal_size_limit=67108864",
)  # fmt: skip
_POLL_SECONDS = 0.01
# What may pass, or what freeing space corrects; every other failure means a damaged file.
_PASSING = tuple(
    f"SQLITE_{name}"
    for name in ("BUSY", "LOCKED", "FULL", "IOERR", "READONLY", "CANTOPEN", "PERM", "NOMEM")
)
LOST = (
    "move the file away: a new one is made, and what was flushed is in the lake; outcomes of "
    "requests that it held cannot be joined any more"
)


def first_offset() -> int:
    """Where the offsets of a new log begin."""
    return int(time.time()) * _A_SECOND


def connect(path: Path, patience: float, *, create: bool) -> sqlite3.Connection | None:
    """A connection to the log; None when the file is absent and not to be made."""
    if not create and not (path.exists() and path.stat().st_size):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    while True:
        try:
            return _opened(path, patience)
        except sqlite3.OperationalError as error:
            # Who makes a new file WAL is refused at once, not waited for, while others do the same.
            name = getattr(error, "sqlite_errorname", "") or ""
            if not name.startswith("SQLITE_BUSY") or time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _opened(path: Path, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if _version(connection) == 0:
            _create(connection)
        if (found := _version(connection)) != VERSION:
            raise Unknown(
                str(path), f"prediction log of form {found}, not {VERSION}", "use its own version"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) == 0:  # not made by another process meanwhile
            for statement in SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now; None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - once a commit: the plain call is half as dear
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_of_the_file(error: Exception) -> bool:
    """Whether an error speaks of the file or the disk, and not of what was to be written."""
    if isinstance(error, OSError):
        return True
    return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)


def translated(path: Path, error: Exception) -> Retryable | Unknown:
    """The error of a file as ours."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if isinstance(error, OSError) or name.startswith(_PASSING):
        return Retryable(
            str(path),
            f"the prediction log cannot be used now: {error}",
            "end stuck writers, free space or correct permissions, then try again",
        )
    return Unknown(str(path), f"the prediction log is damaged: {error}", LOST)


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """SQLite's errors and the disk's as ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translated(path, error) from error
