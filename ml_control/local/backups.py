"""Copies of the registry: made while it is in use, checked before they are named or put back."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ml_control.errors import Conflict, InvalidSpec, MlControlError, PlatformFailed
from ml_control.local.registry import SqliteTables
from ml_control.ports import TABLES
from ml_control.registry import History

if TYPE_CHECKING:
    from collections.abc import Iterator

_BESIDE = ("", "-wal", "-shm")  # the files that are one SQLite database


def back_up(registry: Path, target: Path) -> int:
    """Copy the registry as it is at one moment into a new file; gives its size in bytes.

    Writers go on meanwhile. The copy gets its name only when it was checked whole. Raises
    ``Conflict`` when the name is taken, ``PlatformFailed`` when the registry or the disk fails.
    """
    if target.exists():
        raise _taken(target)
    _require_file(registry, "registry")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with _discarded(draft), _disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(registry)) as source, closing(sqlite3.connect(draft)) as copy:
            source.backup(copy)
        check(draft)
        with closing(sqlite3.connect(draft)) as copy:
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, wherever it is taken
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        try:
            os.link(draft, target)
        except FileExistsError:
            raise _taken(target) from None
    return target.stat().st_size


def restore(registry: Path, source: Path) -> Path | None:
    """Put a copy in the registry's place; gives where the replaced file is kept, if there was one.

    The copy is checked first. The replaced file stays beside it, also when it is damaged. Raises
    ``Conflict`` while a process has the registry open, ``PlatformFailed`` for an unusable copy.
    """
    _require_file(source, "backup")
    if source.resolve() == registry.resolve():
        raise InvalidSpec(str(source), "is the registry itself", "name a backup of it")
    draft = registry.with_name(f".{registry.name}.{secrets.token_hex(4)}")
    with _discarded(draft), _disk(registry):
        shutil.copyfile(source, draft)
        check(draft)
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        _refuse_in_use(registry)
        kept = _set_aside(registry)
        draft.replace(registry)
    return kept


def check(path: Path) -> list[str]:
    """Read a whole registry: SQLite's structure, every record's checksum, every chain of decisions.

    Gives the pipelines that have decisions. Raises ``PlatformFailed`` or ``Unknown``.
    """
    damaged = "name another backup; nothing was changed"
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if found != ["ok"] or not set(TABLES) <= known:
                why = found[0] if found != ["ok"] else "it has not the registry's tables"
                raise PlatformFailed(str(path), f"is no whole registry: {why}", damaged)
            keys = {
                name: [row[0] for row in connection.execute(f'SELECT DISTINCT pk FROM "{name}"')]  # noqa: S608
                for name in TABLES
            }
    except sqlite3.DatabaseError as error:
        raise PlatformFailed(str(path), f"is no whole registry: {error}", damaged) from error
    tables = SqliteTables(path)
    try:
        for name, partitions in keys.items():
            for pk in partitions:
                for _ in tables.query(name, pk):
                    pass
        prefix = "decision#"
        pipelines = [pk[len(prefix) :] for pk in keys["control-ledger"] if pk.startswith(prefix)]
        for pipeline in pipelines:
            History(tables, time.time).verify(pipeline)
    finally:
        tables.close()
    return sorted(pipelines)


def users(registry: Path) -> list[tuple[int, str]]:
    """(pid, program) of the other processes that have the registry open, as far as we may see."""
    names = {f"{registry.resolve()}{end}" for end in _BESIDE}
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with suppress(psutil.Error, OSError):
            if any(file.path in names for file in process.open_files()):
                found.append((process.pid, " ".join(process.cmdline()[:4])))
    return found


def _refuse_in_use(registry: Path) -> None:
    for pid, program in users(registry):
        raise Conflict(
            str(registry),
            f"is in use by process {pid} ({program})",
            "end it ('ml-control down' ends what was started for this home), then restore again",
            holder=f"pid {pid}",
        )


def _set_aside(registry: Path) -> Path | None:
    """Rename what is there now; with its log, which another database must never meet."""
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept = registry.with_name(f"{registry.name}.replaced-{at}-{secrets.token_hex(2)}")
    found = None
    for end in _BESIDE:
        with suppress(FileNotFoundError):
            Path(f"{registry}{end}").rename(f"{kept}{end}")
            found = kept if end == "" else found
    return found


def _require_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise InvalidSpec(str(path), f"there is no such {what}", "name an existing file")


def _taken(target: Path) -> Conflict:
    return Conflict(str(target), "exists already", "name a file that does not, or remove it")


@contextmanager
def _discarded(draft: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for end in (*_BESIDE, "-journal"):
            Path(f"{draft}{end}").unlink(missing_ok=True)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except MlControlError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise PlatformFailed(
            str(path), f"could not be written: {error}", "free space or correct permissions"
        ) from error
