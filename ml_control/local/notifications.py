"""Arrivals on one machine: people drop files into a landing folder.

A file is taken by renaming it into a private folder, so that a later write under the same name
is another file; then linked into the lake; and only after the ledger holds it is it removed from
the private folder. A crash at any point leaves it in one of the two places, and it is found again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import secrets
import signal
import stat
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from ml_control.errors import BadObject, Conflict
from ml_control.lake import Lake, file_digest
from ml_control.local.raw_area import BUCKET, RawArea, copy_whole, remove_draft
from ml_control.ports import Call, Notice, Stored, Stray

_logger = logging.getLogger("ml_control")
_TAKEN = ".taken"
_REFUSED = ".refused"
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp")


class LocalNotifications:
    """``ports.Notifications`` over ``<home>/landing/<pipeline>/``."""

    at_once = 5000
    ordered = True  # one folder, read under a lock

    def __init__(self, landing: Path, lake: Lake) -> None:
        self._landing = landing
        self._raw = RawArea(lake)

    @contextmanager
    def exclusive(self, pipeline: str) -> Iterator[None]:
        """See ``ports.Notifications``. The lock dies with its process."""
        base = self._base(pipeline)
        with (base / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Conflict(
                    f"{pipeline} landing", "another process is taking files in", "try again"
                ) from error
            yield

    def receive(self, pipeline: str, settle: float, limit: int) -> list[Notice]:
        """See ``ports.Notifications``. What an earlier, killed intake had taken comes first."""
        base = self._base(pipeline)
        left = sorted(map(str, (base / _TAKEN).glob("*"))) if (base / _TAKEN).is_dir() else []
        notices = [n for batch in left for n in self._pin(pipeline, batch, limit)]
        if len(notices) < limit:
            batch = self._take(base, settle, limit - len(notices))
            if batch is not None:
                notices += self._pin(pipeline, batch, limit)
        del notices[limit:]
        # Whoever records them may let the dropped files go: their bytes must outlive the power.
        self._raw.make_durable([notice.path for notice in notices if notice.path])
        return notices

    def acknowledge(self, notices: Iterable[Notice]) -> None:
        """See ``ports.Notifications``."""
        folders: set[str] = set()
        for notice in notices:
            if not notice.handle:
                continue
            if notice.refused:
                self._set_aside(Path(notice.handle))
            else:
                with suppress(FileNotFoundError):
                    os.unlink(notice.handle)  # noqa: PTH108 - a hot loop over many files
            folders.add(notice.handle.rpartition("/")[0])
        for folder in folders:
            _remove_empty(Path(folder))

    def calls(self, pipeline: str) -> list[Call]:  # noqa: ARG002 - the port's
        """See ``ports.Notifications``. ``retrain.every`` is the only schedule here."""
        return []

    def drop(self, calls: Iterable[Call]) -> None:
        """See ``ports.Notifications``. There are none."""

    def later(self, path: str, than: str) -> bool | None:  # noqa: ARG002 - the port's
        """See ``ports.Notifications``. A file's times do not tell; they are told in order."""
        return None

    def admit(self, pipeline: str, key: str, file: Path) -> Notice:
        """See ``ports.Notifications``."""
        if not file.is_file():
            raise BadObject(str(file), "is no readable file", "name an existing file")
        relative = PurePosixPath(key)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise BadObject(key, "is no key below the pipeline's folder", "use a relative name")
        if _garbled(key):
            raise BadObject(repr(key), "has control characters or is not text", "rename the file")
        at = file.stat().st_mtime
        hidden = self._base(pipeline) / f".admit-{secrets.token_hex(6)}"
        try:
            digest = copy_whole(file, hidden)
            size = hidden.stat().st_size
            path = self._raw.place(str(hidden), pipeline, str(relative), digest, at)
            self._raw.make_durable([path])
        finally:
            hidden.unlink(missing_ok=True)
        return Notice(BUCKET, f"{pipeline}/{relative}", digest, size, path, at, "", fresh=True)

    def stored(self, pipeline: str, after: str, limit: int) -> list[Stored]:
        """See ``ports.Notifications``."""
        return self._raw.stored(pipeline, after, limit)

    def identify(self, stored: Stored, key: str) -> Notice | None:
        """See ``ports.Notifications``."""
        return self._raw.identify(stored, key)

    def arrived(self, path: str) -> float | None:
        """See ``ports.Notifications``."""
        return self._raw.arrived(path)

    def tidy(self, pipeline: str) -> int:
        """See ``ports.Notifications``. Drafts of the dead, and folders they emptied."""
        base = self._base(pipeline)
        gone = sum(remove_draft(draft) for draft in base.glob(".admit-*"))
        for batch in (base / _TAKEN).glob("*"):
            for folder, _, files in os.walk(batch, topdown=False):
                gone += not files and _remove_empty(Path(folder))
        return gone

    def strays(self, known: Collection[str]) -> list[Stray]:
        """See ``ports.Notifications``. What an intake had taken before counts too."""
        found = []
        for folder in sorted(self._landing.glob("*")):
            if folder.name in known or folder.name.startswith("."):
                continue
            files = [str(folder)]
            if folder.is_dir():
                files = [*_files_below(str(folder))]
                files += _files_below(str(folder / _TAKEN), hidden=True)
            if files:
                found.append(Stray(folder.name, str(folder), len(files)))
        return found

    def _base(self, pipeline: str) -> Path:
        base = self._landing / pipeline
        base.mkdir(parents=True, exist_ok=True)
        return base

    def _take(self, base: Path, settle: float, limit: int) -> str | None:
        """Rename up to ``limit`` settled files into a folder of their own, oldest first."""
        now, root = time.time(), str(base)
        found: list[tuple[float, str]] = []
        for full in _files_below(root):
            with suppress(FileNotFoundError):
                # ctime, not mtime: a copy that keeps its old mtime is still being written.
                changed = os.lstat(full).st_ctime
                if now - changed >= settle or changed > now + settle:
                    found.append((changed, full))
        if not found:
            return None
        batch = f"{root}/{_TAKEN}/{time.time_ns():020d}-{secrets.token_hex(4)}"
        made: set[str] = set()
        left = limit
        for _, full in sorted(found):
            if not left:
                break
            if _still_written(full):
                continue
            target = batch + full[len(root) :]
            folder = target.rpartition("/")[0]
            if folder not in made:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - strings: a hot loop
                made.add(folder)
            try:
                os.rename(full, target)  # noqa: PTH104 - a hot loop over many files
            except FileNotFoundError:
                continue
            except OSError as error:
                # One file that cannot be taken must not keep the others waiting.
                _logger.warning("%s cannot be taken in: %s", full, error.strerror)
                continue
            left -= 1
        return batch

    def _pin(self, pipeline: str, batch: str, limit: int) -> list[Notice]:
        """Link what is in a batch into the lake and give its notices, oldest first."""
        found: list[tuple[float, str]] = []
        for taken in _files_below(batch, hidden=True):
            with suppress(FileNotFoundError):  # another intake acknowledged it
                found.append((os.lstat(taken).st_mtime, taken))
        if not found:  # an intake died after the last file, before the folders it lay in
            for folder, _, _ in os.walk(batch, topdown=False):
                _remove_empty(Path(folder))
        notices: list[Notice] = []
        for _, taken in sorted(found)[:limit]:
            with suppress(FileNotFoundError):
                notices.append(self._notice(pipeline, taken, taken[len(batch) + 1 :]))
        return notices

    def _notice(self, pipeline: str, taken: str, name: str) -> Notice:
        info = os.lstat(taken)
        key = f"{pipeline}/{name}".encode("utf-8", "backslashreplace").decode()
        why, digest = "", ""
        if not stat.S_ISREG(info.st_mode):
            why = "is a link or a special file, not a file"
        elif _garbled(name):
            why = "its name has control characters or is not text"
        else:
            try:
                digest = file_digest(taken)
            except PermissionError:
                why = "may not be read by the user that takes files in"
        if why:
            version = hashlib.sha256(f"{info.st_ino} {info.st_mtime_ns}".encode()).hexdigest()
            return Notice(
                BUCKET, key, version, info.st_size, "", info.st_mtime, taken, why, fresh=True
            )
        return Notice(
            BUCKET,
            key,
            digest,
            info.st_size,
            self._raw.place(taken, pipeline, name, digest, info.st_mtime),
            info.st_mtime,
            taken,
            fresh=True,
            put=hashlib.sha256(taken.encode(errors="surrogateescape")).hexdigest()[:24],
        )

    def _set_aside(self, taken: Path) -> None:
        pipeline = taken.relative_to(self._landing).parts[0]
        aside = self._landing / pipeline / _REFUSED / secrets.token_hex(6) / taken.name
        aside.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            taken.rename(aside)


def _files_below(root: str, *, hidden: bool = False) -> Iterator[str]:
    """Everything below a folder that is no folder; links to folders too, which are not followed.

    What is hidden or not finished is left out unless ``hidden`` is set.
    """
    for folder, folders, files in os.walk(root):
        links = {name for name in folders if os.path.islink(f"{folder}/{name}")}  # noqa: PTH114
        folders[:] = [name for name in folders if name not in links and (hidden or name[0] != ".")]
        for name in (*files, *links):
            if hidden or not (name[0] == "." or name.endswith(_UNFINISHED)):
                yield f"{folder}/{name}"


def _still_written(path: str) -> bool:
    """Whether some process has the file open for writing, where the system can tell.

    A read lease is granted only on a file that nobody has open for writing; it is given back at
    once. Should somebody open the file in between, the signal about it must not end this process.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False  # a link, a socket or not readable: refused with its reason later
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return False
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)  # ignored unless a process asks for it
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    except AttributeError:
        return False  # not Linux
    finally:
        os.close(handle)
    return False


def _garbled(name: str) -> bool:
    """Whether a name has control characters, line ends, or bytes that are no UTF-8."""
    if name.isascii() and name.isprintable():
        return False
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def _remove_empty(folder: Path) -> bool:
    """Remove emptied folders up to the batch's own; whether this one is gone."""
    gone = False
    while _TAKEN in folder.parts and folder.name != _TAKEN:
        try:
            folder.rmdir()
        except OSError:
            return gone
        folder, gone = folder.parent, True
    return gone
