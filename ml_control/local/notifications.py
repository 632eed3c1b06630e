"""Arrivals on one machine: people drop files into a landing folder.

A file is taken by renaming it into a private folder, so that a later write under the same name
is another file; then linked into the lake; and only after the ledger holds it is it removed from
the private folder. A crash at any point leaves it in one of the two places, and it is found again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from ml_control.errors import BadObject, Conflict, PlatformFailed
from ml_control.lake import Lake, file_digest
from ml_control.ports import Notice

BUCKET = "raw"
_logger = logging.getLogger("ml_control")
_TAKEN = ".taken"
_REFUSED = ".refused"
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp")
_STEM, _SUFFIX = 200, 16  # a name with its digest stays within the 255 bytes of a file system
_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]")


class LocalNotifications:
    """``ports.Notifications`` over ``<home>/landing/<pipeline>/``."""

    def __init__(self, landing: Path, lake: Lake) -> None:
        self._landing = landing
        self._lake = lake

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
        left = sorted((base / _TAKEN).glob("*")) if (base / _TAKEN).is_dir() else []
        notices = [n for batch in left for n in self._pin(pipeline, batch, limit)]
        if len(notices) < limit:
            batch = self._take(base, settle, limit - len(notices))
            if batch is not None:
                notices += self._pin(pipeline, batch, limit)
        return notices[:limit]

    def acknowledge(self, notices: Iterable[Notice]) -> None:
        """See ``ports.Notifications``."""
        folders: set[Path] = set()
        for notice in notices:
            if not notice.handle:
                continue
            taken = Path(notice.handle)
            if notice.refused:
                self._set_aside(taken)
            else:
                taken.unlink(missing_ok=True)
            folders.add(taken.parent)
        for folder in folders:
            _remove_empty(folder)

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
            digest = _copy(file, hidden)
            size = hidden.stat().st_size
            path = self._link(hidden, pipeline, relative, digest, at)
        finally:
            hidden.unlink(missing_ok=True)
        return Notice(BUCKET, f"{pipeline}/{relative}", digest, size, path, at, "", fresh=True)

    def _base(self, pipeline: str) -> Path:
        base = self._landing / pipeline
        base.mkdir(parents=True, exist_ok=True)
        return base

    def _take(self, base: Path, settle: float, limit: int) -> Path | None:
        """Rename up to ``limit`` settled files into a folder of their own, oldest first."""
        now = time.time()
        found: list[tuple[float, str]] = []
        for folder, folders, files in os.walk(base):
            folders[:] = [name for name in folders if not name.startswith(".")]
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            folders[:] = [name for name in folders if name not in links]
            for name in [*files, *links]:
                if name.startswith(".") or name.endswith(_UNFINISHED):
                    continue
                full = os.path.join(folder, name)  # noqa: PTH118 - a hot loop over many files
                with suppress(FileNotFoundError):
                    # ctime, not mtime: a copy that keeps its old mtime is still being written.
                    changed = os.lstat(full).st_ctime
                    if now - changed >= settle or changed > now + settle:
                        found.append((changed, full))
        if not found:
            return None
        batch = base / _TAKEN / f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        for _, full in sorted(found)[:limit]:
            target = batch / Path(full).relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                Path(full).rename(target)
            except FileNotFoundError:
                continue
            except OSError as error:
                # One file that cannot be taken must not keep the others waiting.
                _logger.warning("%s cannot be taken in: %s", full, error.strerror)
        return batch

    def _pin(self, pipeline: str, batch: Path, limit: int) -> list[Notice]:
        """Link what is in a batch into the lake and give its notices, oldest first."""
        found: list[tuple[float, Path]] = []
        for folder, folders, files in os.walk(batch):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            folders[:] = [name for name in folders if name not in links]
            for name in [*files, *links]:
                taken = Path(folder) / name
                with suppress(FileNotFoundError):  # another intake acknowledged it
                    found.append((taken.lstat().st_mtime, taken))
        if not found:  # an intake died after the last file, before the folders it lay in
            for folder, _, _ in os.walk(batch, topdown=False):
                _remove_empty(Path(folder))
        notices: list[Notice] = []
        for _, taken in sorted(found)[:limit]:
            with suppress(FileNotFoundError):
                notices.append(self._notice(pipeline, taken, taken.relative_to(batch)))
        return notices

    def _notice(self, pipeline: str, taken: Path, relative: Path) -> Notice:
        info = taken.lstat()
        name = PurePosixPath(relative)
        key = f"{pipeline}/{name}".encode("utf-8", "backslashreplace").decode()
        why, digest = "", ""
        if not stat.S_ISREG(info.st_mode):
            why = "is a link or a special file, not a file"
        elif _garbled(str(name)):
            why = "its name has control characters or is not text"
        else:
            try:
                digest = file_digest(taken)
            except PermissionError:
                why = "may not be read by the user that takes files in"
        if why:
            version = hashlib.sha256(f"{info.st_ino} {info.st_mtime_ns}".encode()).hexdigest()
            return Notice(
                BUCKET, key, version, info.st_size, "", info.st_mtime, str(taken), why, fresh=True
            )
        path = self._link(taken, pipeline, name, digest, info.st_mtime)
        return Notice(
            BUCKET,
            key,
            digest,
            info.st_size,
            path,
            info.st_mtime,
            str(taken),
            fresh=True,
            taken_at=_taken_at(taken, relative),
        )

    def _link(self, file: Path, pipeline: str, name: PurePosixPath, digest: str, at: float) -> str:
        """Give the bytes their permanent place, named by their digest; doing it twice is fine."""
        parts = [_UNSAFE.sub("_", part) for part in name.parts]
        if not any(part.startswith("dt=") for part in parts[:-1]):
            parts.insert(0, f"dt={_day(at)}")
        stem, dot, suffix = parts[-1].rpartition(".")
        if not stem or len(suffix) > _SUFFIX:
            stem, dot, suffix = parts[-1], "", ""
        parts[-1] = f"{stem[:_STEM]}.{digest[:16]}{dot}{suffix}"
        key = "/".join(["raw", pipeline, *parts])
        target = self._lake.local_path(key)
        try:
            os.link(file, target)
        except FileExistsError:
            if file_digest(target) != digest:  # changed by a writer that kept the file open
                target.unlink()
                os.link(file, target)
        except OSError:
            # Another device, or a file of another user (Linux protects those from hard links).
            partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            _copy(file, partial)
            partial.replace(target)
        return key

    def _set_aside(self, taken: Path) -> None:
        pipeline = taken.relative_to(self._landing).parts[0]
        aside = self._landing / pipeline / _REFUSED / secrets.token_hex(6) / taken.name
        aside.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            taken.rename(aside)


def _taken_at(taken: Path, relative: Path) -> float:
    """When a file was taken: its batch's folder is named by that time, in nanoseconds."""
    batch = taken.parents[len(relative.parts) - 1].name
    return int(batch.partition("-")[0]) / 1e9


def _day(at: float) -> str:
    """The UTC day of a file time; file systems allow times that no calendar has."""
    try:
        return datetime.fromtimestamp(at, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "unknown"


def _garbled(name: str) -> bool:
    """Whether a name has control characters, line ends, or bytes that are no UTF-8."""
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def _copy(source: Path, target: Path) -> str:
    try:
        shutil.copyfile(source, target)
        with target.open("rb+") as stream:
            os.fsync(stream.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise PlatformFailed(
            str(source), f"could not be copied: {error}", "free space, then retry"
        ) from error
    return file_digest(target)


def _remove_empty(folder: Path) -> None:
    """Remove emptied folders up to the batch's own."""
    while _TAKEN in folder.parts and folder.name != _TAKEN:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
