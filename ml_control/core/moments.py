"""Times as people give them: ISO dates and times, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ml_control.errors import InvalidSpec
from ml_control.spec import parse_duration

_AGO = re.compile(r"\s*(.+?)\s+ago\s*", re.IGNORECASE)


def moment_of(text: str, now: float, option: str) -> float:
    """UTC seconds of a time: ``2026-11-22``, ``2026-11-22T12:00+01:00``, ``2 h ago``, ``now``.

    Without an offset it is UTC. Raises ``InvalidSpec`` naming the option.
    """
    if text.strip().lower() == "now":
        return now
    try:
        if ago := _AGO.fullmatch(text):
            return now - parse_duration(ago[1])
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidSpec(
            f"{option} {text}",
            "is no time",
            "write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS (UTC unless it names an offset), or '2 h ago'",
        ) from error
