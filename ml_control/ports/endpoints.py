"""What serves models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ml_control.spec import Endpoint


@dataclass(frozen=True)
class EndpointState:
    """What an endpoint is doing now."""

    name: str
    state: Literal["Creating", "InService", "Failed", "Missing"]
    url: str = ""
    model_version: str = ""
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An endpoint's answer to one invocation."""

    status: int
    body: bytes
    content_type: str = ""


class Endpoints(Protocol):
    """Runs one serving process (or cloud endpoint) for each variant."""

    @property
    def on_this_machine(self) -> bool:
        """Whether they are processes of this machine: asked over plain HTTP at ``url``, with
        ``instance`` in the detail to know them by, and ended with the home.
        """
        ...

    def deploy(
        self,
        name: str,
        archive: bytes,
        model_version: str,
        container: str,
        timeout: float,
        token: int = 0,
        shape: Endpoint | None = None,
    ) -> EndpointState:
        """Serve this archive under this name, replacing what was there, and wait for it.

        What serves already is left. ``token`` is the fencing token of the deployer's lease: the
        highest one is kept with the endpoint, and ``Conflict`` is raised, with nothing started,
        for a lower one: a deployer that slept past its lease must not replace its successor's
        model. ``shape`` is what it is served on, where the platform has a choice. Returns when
        InService. Raises ``PlatformFailed`` with the end of the server's
        log; what served before serves on.
        """
        ...

    def describe(self, name: str) -> EndpointState:
        """The endpoint's state, never raising for an absent one."""
        ...

    def invoke(
        self,
        name: str,
        body: bytes,
        content_type: str = "text/csv",
        accept: str = "text/csv",
        archive: str = "",
        seconds: float = 0.0,
    ) -> Reply:
        """One request to the endpoint, of at most so many ``seconds`` (0: the platform's own
        limit). Raises ``Retryable`` when it cannot be reached.

        With the SHA-256 of an ``archive`` only a server of exactly these bytes is asked; while
        another model serves under this name, ``Retryable`` is raised.
        """
        ...

    def stop(self, name: str) -> None:
        """End the endpoint; stopping an absent one is harmless."""
        ...

    def names(self) -> list[str]:
        """Every endpoint that served once, serving now or not, sorted."""
        ...
