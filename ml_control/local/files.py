"""Small files that several processes share: written whole, read whole, changed by one at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_control.errors import Conflict, PlatformFailed

_POLL_SECONDS = 0.02


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file's content at once and durably: a reader sees the old or the new, whole.

    Raises ``PlatformFailed`` when the disk refuses; the old content stays.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise refused_by_disk(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def refused_by_disk(what: object, error: OSError) -> PlatformFailed:
    """The typed refusal for something that could not be written."""
    return PlatformFailed(
        str(what),
        f"could not be written: {error.strerror or error}",
        "free space or correct permissions, then retry",
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as JSON, whole, readable by its owner only."""
    write_whole(path, json.dumps(value, sort_keys=True, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None when the file is absent or is not one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def tail(path: Path, lines: int = 15, limit: int = 16_384) -> str:
    """The last lines of a log file, of at most ``limit`` bytes; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


@contextlib.contextmanager
def exclusive(path: Path, timeout: float, what: str) -> Iterator[None]:
    """Hold a file lock, against other threads and other processes alike.

    The lock ends with the process that holds it, so a crash leaves nothing to clear. Raises
    ``Conflict`` about ``what`` when it is not free within ``timeout`` seconds. The holder, and
    nobody else, may remove the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not (locked := _try_lock(handle, fcntl.LOCK_EX)) or not _names(path, handle):
            if locked:  # its holder removed the file while we waited: another has the name now
                os.close(handle)
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                continue
            if time.monotonic() >= deadline:
                raise Conflict(
                    what,
                    f"another process has been changing it for more than {timeout:g} s",
                    "wait until it has finished, then try again",
                    holder=_holder(handle),
                )
            time.sleep(_POLL_SECONDS)
        with contextlib.suppress(OSError):  # a note for whoever waits; a full disk has no room
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _names(path: Path, handle: int) -> bool:
    """Whether the path still is the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock now. Takes a shared lock only, so that lookers-on do not
    see each other.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try_lock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> str:
    return f"pid {os.pread(handle, 20, 0).decode(errors='replace')}"
