"""What is and what was, and whether the gateway answers."""

from __future__ import annotations

from typing import Any

import orjson

from ml_control.serving.handlers.desk import Desk
from ml_control.serving.handlers.messages import Answer, Request
from ml_control.serving.handlers.steps import Do, Steps


def pipelines(request: Request, desk: Desk) -> Steps:  # noqa: ARG001 - as every handler
    """Every pipeline now."""
    return as_json((yield Do(desk.views.pipelines)))


def pipeline(request: Request, desk: Desk, *, pipeline: str) -> Steps:  # noqa: ARG001
    """One pipeline now."""
    return as_json((yield Do(lambda: desk.views.pipeline(pipeline))))


def history(request: Request, desk: Desk, *, pipeline: str) -> Steps:  # noqa: ARG001
    """Every decision about a pipeline."""
    return as_json((yield Do(lambda: desk.views.history(pipeline))))


def healthz(request: Request, desk: Desk) -> Steps:  # noqa: ARG001
    """That it answers."""
    yield from ()
    return as_json({"status": "ok"})


def as_json(value: Any) -> Answer:
    """Plain data as an answer."""
    return Answer(200, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
