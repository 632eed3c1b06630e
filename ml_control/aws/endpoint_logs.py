"""How an endpoint's log ends, for the error that says why it failed."""

from __future__ import annotations

from typing import Any

from ml_control.aws.client import Clients, redacted, translated
from ml_control.errors import MlControlError

LINES = 50
_STREAMS = 5  # the newest containers
_LONGEST = 400  # characters of one line


def log_tail(clients: Clients, real: str, since: float = 0.0, lines: int = LINES) -> str:
    """The last lines of an endpoint's log group, oldest first, in one text.

    ``since`` in UTC seconds leaves out what earlier endpoints of this name wrote. Empty when there
    is no log, or it cannot be read: it must not hide why it is asked for.
    """
    try:
        found = _events(clients, f"/aws/sagemaker/Endpoints/{real}", since, lines)
    except MlControlError:
        return ""
    told = [redacted(str(event["message"]).rstrip())[:_LONGEST] for event in found]
    return "\n".join(told)


def _events(clients: Clients, group: str, since: float, lines: int) -> list[dict[str, Any]]:
    logs = clients.client("logs")
    with translated(f"log group {group}"):
        streams = logs.describe_log_streams(
            logGroupName=group, orderBy="LastEventTime", descending=True, limit=_STREAMS
        )["logStreams"]
        events: list[dict[str, Any]] = []
        for stream in streams:
            answer = logs.get_log_events(
                logGroupName=group,
                logStreamName=stream["logStreamName"],
                startTime=int(1000 * since),
                startFromHead=False,
                limit=lines,
            )
            events += answer["events"]
    return sorted(events, key=lambda event: event["timestamp"])[-lines:]
