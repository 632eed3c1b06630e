"""Alerts on one machine: a line in a file, and a POST to a webhook where one is set."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from ml_control.alert_file import AlertFile, body_of
from ml_control.errors import Retryable
from ml_control.ports import Alert

_TIMEOUT_SECONDS = 5.0


class LocalAlerts:
    """``ports.Alerts`` over ``<home>/logs/alerts.jsonl``, one line an alert, and a webhook."""

    def __init__(self, file: Path, webhook: str = "") -> None:
        self._file = file
        self._lines = AlertFile(file)
        self._webhook = webhook

    def __repr__(self) -> str:
        return f"LocalAlerts({str(self._file)!r}, webhook={_redacted(self._webhook)!r})"

    def send(self, alert: Alert) -> None:
        """See ``ports.Alerts``. The file has it before the webhook is tried."""
        self._lines.append(alert)
        if self._webhook:
            self._post(body_of(alert))

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
