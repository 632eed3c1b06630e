"""Anchors on one machine: a line each in ``<home>/logs/history.anchors``."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ml_control.errors import PlatformFailed
from ml_control.registry.anchors import Anchor


class LocalAnchors:
    """``registry.anchors.Anchors`` over a file that is only appended to."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, anchor: Anchor) -> None:
        """See ``Anchors``. On disk when it returns; after a torn line a new one begins."""
        line = json.dumps(asdict(anchor), ensure_ascii=False).encode() + b"\n"
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)  # ends with the process
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = b"\n" + line
                while line:
                    line = line[os.write(handle, line) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise PlatformFailed(
                str(self._file), f"could not be written: {error.strerror}", "free space"
            ) from error

    def of(self, pipeline: str) -> list[Anchor]:
        """See ``Anchors``. A torn line says nothing and is passed over."""
        found = []
        try:
            with self._file.open("rb") as stream:
                for line in stream:
                    with suppress(ValueError, TypeError):
                        anchor = Anchor(**json.loads(line))
                        if anchor.pipeline == pipeline:
                            found.append(anchor)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PlatformFailed(
                str(self._file), f"could not be read: {error.strerror}", "correct its permissions"
            ) from error
        return found
