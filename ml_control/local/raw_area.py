"""The lake's raw area on one machine: where dropped files get their permanent place.

A file's place is named by its folder, its name and its digest, so that another content is another
place, and giving it twice is fine.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ml_control.errors import PlatformFailed
from ml_control.lake import Lake, file_digest
from ml_control.ports import Notice, Stored

BUCKET = "raw"
_MANIFESTS = "_manifests"
_STEM, _SUFFIX = 200, 16  # a name with its digest stays within the 255 bytes of a file system
_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]")
_NAMED = re.compile(r"^(?P<stem>.+)\.(?P<digest>[0-9a-f]{16})(?P<suffix>\.[^.]*)?$")
_SYNCED_AT_ONCE = 50  # files from which one sync of the file system is cheaper than one of each
_DRAFT_SECONDS = 3600.0  # a draft that nobody has written to for so long has lost its writer


class RawArea:
    """Places, lists and reads the files below ``raw/<pipeline>/``."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        # Names of the folder listed last, so that a sweep through a large one reads it once.
        self._listed: tuple[str, int, list[str]] = ("", 0, [])

    def place(self, file: str, pipeline: str, name: str, digest: str, at: float) -> str:
        """Give the bytes their permanent place; gives its lake key."""
        parts = [_UNSAFE.sub("_", part) for part in name.split("/")]
        if not any(part.startswith("dt=") for part in parts[:-1]):
            parts.insert(0, f"dt={_day(at)}")
        stem, dot, suffix = parts[-1].rpartition(".")
        if not stem or len(suffix) > _SUFFIX:
            stem, dot, suffix = parts[-1], "", ""
        parts[-1] = f"{stem[:_STEM]}.{digest[:16]}{dot}{suffix}"
        key = "/".join(["raw", pipeline, *parts])
        try:
            os.link(file, self._lake.local_path(key, make=False))
        except OSError:  # the first file of its folder, or one that is not just linked
            self._place_with_care(file, self._lake.local_path(key), digest)
        return key

    def _place_with_care(self, file: str, target: Path, digest: str) -> None:
        try:
            os.link(file, target)
        except FileExistsError:
            if file_digest(target) != digest:  # changed by a writer that kept the file open
                target.unlink()
                os.link(file, target)
        except FileNotFoundError:  # another intake acknowledged it
            raise
        except OSError:
            # Another device, or a file of another user (Linux protects those from hard links).
            partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            copy_whole(Path(file), partial)
            partial.replace(target)

    def make_durable(self, keys: Sequence[str]) -> None:
        """Have the disk hold these files, their names and folders. Raises ``PlatformFailed``."""
        if not keys:
            return
        root = self._lake.local_path("raw/x").parent
        try:
            if len(keys) < _SYNCED_AT_ONCE or not _sync_file_system(root):
                paths = [self._lake.local_path(key, make=False) for key in keys]
                below = {up for path in paths for up in path.parents if up.is_relative_to(root)}
                for path in (*paths, *below, root.parent):
                    _sync(path)
        except OSError as error:
            raise PlatformFailed(
                str(root),
                f"the disk does not confirm what was written: {error.strerror or error}",
                "check the disk; the files are taken in again from where they are",
            ) from error

    def stored(self, pipeline: str, after: str, limit: int) -> list[Stored]:
        """See ``ports.Notifications``."""
        found: list[Stored] = []
        root = self._lake.local_path(f"raw/{pipeline}/x").parent
        for path in self._files(root, f"raw/{pipeline}", after):
            with suppress(FileNotFoundError):
                info = (root.parent.parent / path).lstat()
                if stat.S_ISREG(info.st_mode):
                    key, beside = _told_by(path)
                    found.append(Stored(path, info.st_ctime, key, beside))
            if len(found) == limit:
                break
        return found

    def identify(self, stored: Stored, key: str) -> Notice | None:
        """See ``ports.Notifications``."""
        path = self._lake.local_path(stored.path)
        try:
            info, digest = path.stat(), file_digest(path)
        except FileNotFoundError:
            return None
        self.make_durable([stored.path])
        return Notice(BUCKET, key, digest, info.st_size, stored.path, info.st_mtime, "")

    def arrived(self, path: str) -> float | None:
        """See ``ports.Notifications``."""
        try:
            return self._lake.local_path(path).lstat().st_ctime
        except FileNotFoundError:
            return None

    def _files(self, folder: Path, key: str, after: str) -> Iterator[str]:
        """Keys of the files below a folder that come after this one, sorted."""
        for name in self._names(folder):
            below = f"{key}/{name}"
            if name.endswith("/"):
                if below > after or after.startswith(below):
                    yield from self._files(folder / name[:-1], below[:-1], after)
            elif below > after:
                yield below

    def _names(self, folder: Path) -> list[str]:
        """Names in a folder, folders with a slash, in the order of whole keys."""
        try:
            changed = folder.stat().st_mtime_ns
            # Unchanged by the file system's coarse clock is believed only when that is long ago.
            if self._listed[:2] == (str(folder), changed) and time.time_ns() - changed > 10**9:
                return self._listed[2]
            with os.scandir(folder) as entries:
                names = [
                    f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if self._counts(entry)
                ]
        except FileNotFoundError:
            return []
        names.sort()
        self._listed = (str(folder), changed, names)
        return names

    def _counts(self, entry: os.DirEntry[str]) -> bool:
        """Manifests, drafts and half-written copies are no objects; old drafts are removed."""
        if entry.name.startswith("."):
            remove_draft(Path(entry.path))
            return False
        return entry.name != _MANIFESTS and not re.search(r"#\d+$", entry.name)


def _told_by(path: str) -> tuple[str, str]:
    """(the key as far as a path tells, what the paths of its other versions begin with)."""
    folder, _, name = path.rpartition("/")
    key = folder.partition("/")[2]
    match = _NAMED.match(name)
    if match is None:
        return f"{key}/{name}", ""
    return f"{key}/{match['stem']}{match['suffix'] or ''}", f"{folder}/{match['stem']}."


def remove_draft(path: Path) -> bool:
    """Remove a draft whose writer died; one that is still written to stays."""
    with suppress(OSError):
        info = path.lstat()
        old = time.time() - max(info.st_mtime, info.st_ctime) > _DRAFT_SECONDS
        if old and stat.S_ISREG(info.st_mode):
            path.unlink()
            return True
    return False


def copy_whole(source: Path, target: Path) -> str:
    """Copy a file durably; gives the digest of the copy. Raises ``PlatformFailed``."""
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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_file_system(folder: Path) -> bool:
    """Write out everything of a file system; False where the system cannot. Raises ``OSError``."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return False  # not Linux
    handle = os.open(folder, os.O_RDONLY)
    try:
        if call(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(handle)
    return True


def _day(at: float) -> str:
    """The UTC day of a file time; file systems allow times that no calendar has."""
    try:
        return datetime.fromtimestamp(at, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "unknown"
