"""Alerts to an SNS topic; without one, a line in the local file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ml_control.alert_file import AlertFile, body_of
from ml_control.aws.client import Clients, translated
from ml_control.ports import Alert

_SUBJECT = 100  # characters, ASCII without control characters: what SNS takes


class SnsAlerts:
    """``ports.Alerts`` over the topic that the settings name.

    Subscribers filter by the message attributes ``kind`` and ``pipeline``. A FIFO topic drops what
    comes again within five minutes by itself; from another, a person may hear something twice.
    """

    def __init__(self, clients: Clients, file: Path) -> None:
        self._clients = clients
        self._lines = AlertFile(file)

    def __repr__(self) -> str:
        return f"SnsAlerts({self._clients.settings.topic_arn or 'no topic'!r})"

    def send(self, alert: Alert) -> None:
        """See ``ports.Alerts``."""
        topic = self._clients.settings.topic_arn
        if not topic:
            self._lines.append(alert)
            return
        more: dict[str, Any] = {}
        if topic.endswith(".fifo"):
            group = alert.pipeline or "ml-control"
            more = {"MessageGroupId": group, "MessageDeduplicationId": alert.id}
        with translated(f"topic {topic}", "correct topic_arn under [aws]; it is tried again"):
            self._clients.client("sns").publish(
                TopicArn=topic,
                Subject=_subject(alert),
                Message=json.dumps(body_of(alert), ensure_ascii=False),
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value}
                    for name, value in (("kind", alert.kind), ("pipeline", alert.pipeline))
                    if value  # SNS refuses an empty one: of what belongs to no pipeline
                },
                **more,
            )


def _subject(alert: Alert) -> str:
    """One line for people's mail programs."""
    text = ": ".join(filter(None, (alert.pipeline, alert.kind, alert.object)))
    return re.sub(r"[^ -~]+", "?", text)[:_SUBJECT]
