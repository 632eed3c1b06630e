"""The file that alerts are kept in where nothing else takes them: one line an alert."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path

from ml_control.errors import PlatformFailed
from ml_control.ports import Alert

_LONGEST = 1000  # characters of a text: an alert says where to look, it carries no data


def body_of(alert: Alert) -> dict[str, object]:
    """What is told of an alert, as JSON has it."""
    return {
        name: value[:_LONGEST] if isinstance(value, str) else value
        for name, value in asdict(alert).items()
    }


class AlertFile:
    """A file of JSON lines that several processes append to; each alert is in it once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def append(self, alert: Alert) -> None:
        """Add the alert unless the file has it. Raises ``PlatformFailed`` with the disk's words."""
        line = json.dumps(body_of(alert), ensure_ascii=False).encode() + b"\n"
        self._append(alert.id, line)

    def _append(self, id: str, line: bytes) -> None:
        """Add a whole line, durably, unless the file has this alert; drop a torn one before it."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)  # ends with the process
                with os.fdopen(os.dup(handle), "rb") as file:
                    held = file.read()
                whole = held.rfind(b"\n") + 1
                if f'"id": "{id}"'.encode() in held[:whole]:
                    return
                os.ftruncate(handle, whole)  # a writer died in mid-line, and will send it again
                written = 0
                while written < len(line):
                    written += os.pwrite(handle, line[written:], whole + written)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise PlatformFailed(
                str(self._file), f"could not be written: {error.strerror}", "free space, then wait"
            ) from error
