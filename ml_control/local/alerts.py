"""Alerts on one machine: a line in a file, and a POST to a webhook where one is set."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from ml_control.errors import PlatformFailed, Retryable
from ml_control.ports import Alert

_TIMEOUT_SECONDS = 5.0
_LONGEST = 1000  # characters of a text: an alert says where to look, it carries no data


class LocalAlerts:
    """``ports.Alerts`` over ``<home>/logs/alerts.jsonl``, one line an alert, and a webhook."""

    def __init__(self, file: Path, webhook: str = "") -> None:
        self._file = file
        self._webhook = webhook

    def __repr__(self) -> str:
        return f"LocalAlerts({str(self._file)!r}, webhook={_redacted(self._webhook)!r})"

    def send(self, alert: Alert) -> None:
        """See ``ports.Alerts``. The file has it before the webhook is tried."""
        body = {
            name: value[:_LONGEST] if isinstance(value, str) else value
            for name, value in asdict(alert).items()
        }
        self._append(alert.id, json.dumps(body, ensure_ascii=False).encode() + b"\n")
        if self._webhook:
            self._post(body)

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

    def _post(self, body: dict[str, object]) -> None:
        import httpx

        shown = _redacted(self._webhook)
        for name in ("httpx", "httpcore"):  # they log addresses whole
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.WARNING))
        try:
            answer = httpx.post(self._webhook, json=body, timeout=_TIMEOUT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Without the cause: its text may hold the address, and with it a token.
            raise Retryable(
                f"webhook {shown}", f"did not answer: {type(error).__name__}", "it is tried again"
            ) from None
        if not answer.is_success:
            raise Retryable(
                f"webhook {shown}", f"answered {answer.status_code}", "it is tried again"
            )


def _redacted(address: str) -> str:
    """Scheme and host: path, query and user may hold a token."""
    if not address:
        return ""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "(no address)"
    return f"{parts.scheme}://{parts.hostname or ''}/..."
