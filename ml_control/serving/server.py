"""One HTTP server process: uvicorn under our bounds, until SIGTERM or SIGINT, then drained."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import uvicorn

from ml_control.serving.http import log
from ml_control.serving.protocol import HEAD_SECONDS, GuardedProtocol

DRAIN_SECONDS = 30
_SWITCH_SECONDS = 0.001


def bind(host: str, port: int) -> socket.socket:
    """A listening address. Raises ``OSError`` when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY; without it every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def run(
    application: Any,
    listener: socket.socket,
    ready: Callable[[], None],
    *,
    read_seconds: float,
    request_seconds: float | None = None,
    protocol: type[GuardedProtocol] = GuardedProtocol,
    name: str = "endpoint",
) -> None:
    """Serve an ASGI application; ``ready`` is called once requests are answered.

    ``read_seconds`` bounds the arrival of a body, ``request_seconds`` the whole of a request.
    Ends by ``SystemExit`` after draining.
    """

    class Protocol(protocol):  # type: ignore[valid-type,misc]
        # Twice: for the body to arrive, and for the answer to be taken.
        pass

    Protocol.request_seconds = request_seconds or 2 * read_seconds + 10
    Protocol.head_seconds = min(HEAD_SECONDS, read_seconds)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        async def on_tick(self, counter: int) -> bool:
            if counter % 10 == 0:  # once a second
                now = asyncio.get_running_loop().time()
                for connection in list(self.server_state.connections):
                    if isinstance(connection, GuardedProtocol):
                        connection.check(now)
            return await super().on_tick(counter)

    def terminated(number: int, _frame: FrameType | None) -> NoReturn:
        log(f"stopped by {signal.Signals(number).name}", name)
        raise SystemExit(0)

    config = uvicorn.Config(
        application,
        http=Protocol,
        loop="uvloop",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than any client's pool keeps an idle connection
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    # So that a thread that reads a body slowly, in Python, holds up the loop for this long only.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # After draining, uvicorn raises the signal again under the handlers it found here.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminated)
    Server(config).run(sockets=[listener])
