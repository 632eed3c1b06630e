"""A person's commands, where the services have them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from ml_control.gateway.state import State
from ml_control.serving.handlers.management import BODIES

SERVICE = "ml_control.services.commands"


def functions() -> dict[str, Callable[..., Any]]:
    """``name(platform, pipeline, *, actor, because, ...)`` of every command that exists."""
    if importlib.util.find_spec(SERVICE) is None:
        return {}
    module = importlib.import_module(SERVICE)
    return {name: getattr(module, name) for name in BODIES if hasattr(module, name)}


def on(state: State, known: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The commands by a pipeline's name, on the platform of a gateway."""
    return {name: partial(_call, state, function) for name, function in known.items()}


def _call(state: State, function: Callable[..., Any], pipeline: str, **fields: Any) -> Any:
    return function(state.platform, state.pipeline(pipeline), **fields)
