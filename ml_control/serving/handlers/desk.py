"""What handlers work with beside the steps that they ask for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ml_control.ports import PredictionLog
from ml_control.serving.handlers.bodies import Strict
from ml_control.serving.handlers.rows import RECORDS, Codec


class Views(Protocol):
    """What is and what was, as plain data; unknown names raise a ``Refusal`` (404)."""

    def pipelines(self) -> dict[str, Any]:
        """Every pipeline as it is now."""
        ...

    def pipeline(self, pipeline: str) -> dict[str, Any]:
        """One pipeline as it is now."""
        ...

    def history(self, pipeline: str) -> dict[str, Any]:
        """Every decision about a pipeline."""
        ...


@dataclass(frozen=True)
class Command:
    """A person's decision: the body that it takes, and what carries it out.

    ``call`` is given the pipeline's name, ``actor``, and the body's fields by name.
    """

    name: str
    body: type[Strict]
    summary: str
    call: Callable[..., Any]


@dataclass(frozen=True)
class Desk:
    """Ports and settings of the handlers."""

    log: PredictionLog
    views: Views
    commands: Mapping[str, Command] = field(default_factory=dict)
    codec: Codec = RECORDS
    clock: Callable[[], float] = time.time
