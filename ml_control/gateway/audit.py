"""Every call that would change something, done or refused: a line of JSON in a file.

What is done stands in the pipeline's history as well, under the same name and reason.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import orjson

from ml_control.serving.handlers.messages import Answer, Caller

_LONGEST = 1000
_MOST_BYTES = 64 << 20  # then the file is put aside, and the one put aside before is dropped


class Audit:
    """Appends to ``<home>/logs/audit.jsonl``, readable by its owner only."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._turn = threading.Lock()

    def note(
        self, caller: Caller, command: str, pipeline: str, body: bytes, answer: Answer
    ) -> None:
        """Write a call down. Raises ``OSError`` when it cannot be written."""
        refused = _error(answer)
        entry = {
            "at": time.time(),
            "who": caller.name or None,
            "role": caller.role or None,
            "address": caller.address,
            "command": command,
            "pipeline": pipeline[:128],
            "because": _because(body),
            "status": answer.status,
            "refused": refused,
        }
        line = json.dumps(entry).encode() + b"\n"  # ASCII alone: no text can look like a line
        with self._turn:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._file.exists() and self._file.stat().st_size > _MOST_BYTES:
                self._file.replace(self._file.with_suffix(".jsonl.1"))
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, line)
                os.fsync(handle)
            finally:
                os.close(handle)


def _because(body: bytes) -> str | None:
    try:
        found = orjson.loads(body)["because"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return found[:_LONGEST] if isinstance(found, str) else None


def _error(answer: Answer) -> str | None:
    if answer.status < 400:
        return None
    error = json.loads(answer.body)["error"]
    return f"{error['kind']}: {error['reason']}"[:_LONGEST]
