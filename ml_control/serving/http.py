"""What both of our servers do with a request's body and an answer, over ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_control.serving.refused import Refused

_LINGER_BYTES = 64 << 20
_LINGER_SECONDS = 2.0

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]


class Gone(Exception):
    """The caller hung up: nobody is left to answer."""


@dataclass(frozen=True)
class Response:
    """A whole response."""

    status: int
    kind: str = ""
    body: bytes = b""
    headers: tuple[Header, ...] = ()


class Inbox:
    """The request's body as it arrives; ``complete`` once nothing more can come.

    ``what`` names what a body that is too large has too many of.
    """

    def __init__(
        self, receive: Receive, headers: Mapping[str, str], limit: int, what: str = "rows"
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._what = what
        self._declared = headers.get("content-length", "0")
        self.complete = not ({"content-length", "transfer-encoding"} & headers.keys())

    def require_bounded(self) -> None:
        """Raise ``Refused`` (413) when the caller announces more than is taken."""
        if not self._declared.isdecimal() or int(self._declared) > self._limit:
            raise self._too_large()

    async def read(self, seconds: float) -> bytes:
        """The whole body. Raises ``Refused``: 413 once it is too large, then it reads no more,
        408 when it has not arrived in time.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._read()
        except TimeoutError:
            raise Refused(
                408, f"the body did not arrive within {seconds:g} seconds; send it whole"
            ) from None

    async def _read(self) -> bytes:
        parts, size = [], 0
        while not self.complete:
            part = await self._next()
            size += len(part)
            if size > self._limit:
                raise self._too_large()
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def hung_up(self) -> None:
        """Return once the caller has hung up. Only after the whole body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def discard(self) -> None:
        """Read on within bounds and forget it, until the caller has sent all or hung up."""
        size = 0
        with contextlib.suppress(TimeoutError, Gone):
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self.complete and size <= _LINGER_BYTES:
                    size += len(await self._next())

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        self.complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    def _too_large(self) -> Refused:
        reason = f"the body is larger than {self._limit} bytes; send fewer {self._what} at once"
        return Refused(413, reason)


def headers_of(scope: Scope) -> dict[str, str]:
    """A request's headers by their lower-case names."""
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}


async def respond(response: Response, more: tuple[Header, ...], inbox: Inbox, send: Send) -> None:
    """Send a response with ``more`` headers, and close when the body was not taken whole."""
    headers = [*more, *response.headers]
    if response.status != 204:
        headers.append((b"content-length", str(len(response.body)).encode()))
    if response.kind:
        headers.append((b"content-type", response.kind.encode()))
    if not inbox.complete:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if not inbox.complete:
        # Closing on a caller that still sends resets the connection, and it never sees the answer.
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await inbox.discard()
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": response.body})


def log(line: str, name: str = "endpoint") -> None:
    """One line with the UTC time on standard error."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"{now} {name}[{os.getpid()}] {line}", file=sys.stderr, flush=True)
