"""A person's commands, by the name of their address."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ml_control.gateway.state import State
from ml_control.services.releases import commands
from ml_control.serving.handlers.management import BODIES


def functions() -> dict[str, Callable[..., Any]]:
    """``name(platform, pipeline, *, actor, because, ...)`` of every command."""
    return {name: getattr(commands, name) for name in BODIES}


def on(state: State, known: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The commands by a pipeline's name, on the platform of a gateway."""
    return {name: partial(_call, state, function) for name, function in known.items()}


def _call(state: State, function: Callable[..., Any], pipeline: str, **fields: Any) -> Any:
    return function(state.platform, state.pipeline(pipeline), **fields)
