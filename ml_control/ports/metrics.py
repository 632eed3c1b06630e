"""Numbers that the platform keeps, and alarms that it watches over them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Unit = Literal["Count", "Seconds", "Milliseconds", "Percent", "None"]


@dataclass(frozen=True)
class Sample:
    """One number at one time, with what it is about (pipeline, variant)."""

    name: str
    value: float
    unit: Unit = "None"
    at: float = 0.0  # UTC seconds
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alarm:
    """What an alarm says. ``missing``: there is none of this name, or it has no data."""

    name: str
    state: Literal["ok", "firing", "missing"]
    since: float = 0.0  # UTC seconds
    reason: str = ""


class Metrics(Protocol):
    """Where numbers go."""

    def emit(self, samples: Sequence[Sample]) -> None:
        """Keep them. Raises ``Retryable`` when they must come again; twice is harmless."""
        ...


class Alarms(Protocol):
    """Alarms that the platform watches."""

    def read(self, names: Collection[str]) -> list[Alarm]:
        """Each of these alarms, in order of name; never raises for one that is absent."""
        ...
