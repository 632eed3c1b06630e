"""What a gateway answers beside its interface: the console, and the metrics of Prometheus."""

from __future__ import annotations

import json
from pathlib import Path

from ml_control.gateway.audit import Audit
from ml_control.gateway.console.desk import Console
from ml_control.gateway.state import State
from ml_control.services.reading.metrics import CONTENT_TYPE, TICKS_FILE, exposition
from ml_control.serving.handlers.desk import Desk
from ml_control.serving.handlers.messages import Answer, Request
from ml_control.serving.handlers.routes import Route
from ml_control.serving.handlers.steps import Do, Steps


def pages(state: State) -> list[Route]:
    """The routes of both."""
    home = state.platform.settings.home

    def ui() -> str | None:
        """Address of the Dagster UI that ``up`` runs for this home, if it does."""
        try:
            return str(json.loads((home / "up.json").read_text("utf-8"))["ui"])
        except (OSError, ValueError, KeyError):
            return None

    def metrics(request: Request, desk: Desk) -> Steps:  # noqa: ARG001 - as every handler
        found = list(state.folder.found.values())
        text = yield Do(lambda: exposition(state.platform, found, _ticks(home)))
        return Answer(200, text, kind=CONTENT_TYPE)

    scraped = Route("GET", "/metrics", "read", "Metrics for Prometheus", metrics, kind=CONTENT_TYPE)
    return [*Console(state, Audit(home / "logs" / "audit.jsonl"), ui).routes(), scraped]


def _ticks(home: Path) -> dict[str, float]:
    """When each sensor ticked last, as ``up`` saw it; nothing without ``up``."""
    try:
        found: dict[str, float] = json.loads((home / TICKS_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found
