"""Who tells people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Alert:
    """Something that a person has to look at. ``key`` names the trouble, ``id`` this alert."""

    id: str
    key: str
    pipeline: str
    kind: str
    object: str
    reason: str
    next: str
    at: float


class Alerts(Protocol):
    """Tells people."""

    def send(self, alert: Alert) -> None:
        """Tell it; sending one twice is harmless. Raises ``Retryable`` when it must come again."""
        ...
