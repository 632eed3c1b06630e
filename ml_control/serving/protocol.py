"""HTTP/1.1 for strangers: uvicorn's httptools protocol with the bounds that it leaves open.

A head has a size and a time to arrive in, a whole request has a time, connections have a number;
when there are too many, those that only wait make room. What is refused here has the same form of
answer as what the application refuses.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 65_536
MAX_CONNECTIONS = 512
HEAD_SECONDS = 15.0
_PASSED_ON = 1 << 20  # bytes of a body that are gathered before the application sees them


class GuardedProtocol(HttpToolsProtocol):
    """One connection. ``request_seconds`` bounds a request from its head to its answer's end."""

    request_seconds = 130.0
    head_seconds = HEAD_SECONDS
    no_request = "these bytes are no HTTP/1.1 request; send one to /invocations or /ping"
    # Connections without a request in progress, the one that has waited longest first.
    waiting: dict[GuardedProtocol, None] = {}  # noqa: RUF012 (shared on purpose: one a process)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_size = 0
        self._since = self.loop.time()
        self._refusal: tuple[int, str] | None = None
        self._gathered: list[bytes] = []
        self._size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it when as many requests are in progress."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            longest = next(iter(self.waiting), None)
            if longest is None:
                self._refuse(503, "too many requests are in progress; try again in a moment")
                return
            self.waiting.pop(longest)
            longest.transport.close()
        self.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse a head that goes on for too long."""
        if self._in_head:
            self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > MAX_HEAD and not self.transport.is_closing():
            self._refuse(*_LARGE_HEAD)

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._in_head:
            self._in_head, self._head_size, self._since = True, 0, self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole: the request is in progress."""
        if len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers) > MAX_HEAD:
            self._refusal = _LARGE_HEAD
            raise ValueError("head")  # the parser stops, and asks for send_400_response
        self._in_head, self._since = False, self.loop.time()
        self.waiting.pop(self, None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Gather a large body: waking the application for each packet costs more than reading."""
        self._gathered.append(body)
        self._size += len(body)
        if self._size >= _PASSED_ON:
            self._pass_on()

    def on_message_complete(self) -> None:
        """A body is whole."""
        self._pass_on()
        super().on_message_complete()

    def _pass_on(self) -> None:
        if self._gathered:
            body = b"".join(self._gathered)
            self._gathered, self._size = [], 0
            super().on_body(body)

    def on_response_complete(self) -> None:
        """A request is answered: the connection waits for the next."""
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._since = self.loop.time()
            self.waiting[self] = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (ours says more)
        """Refuse what the parser did not understand."""
        self._refuse(*(self._refusal or (400, self.no_request)))

    def check(self, now: float) -> None:
        """End the connection if its head or its request takes too long. Called once a second."""
        if self.transport is None:
            return
        elapsed = now - self._since
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            if elapsed > self.request_seconds:
                self.transport.abort()  # its caller does not read
        elif self in self.waiting:
            if self._in_head and elapsed > self.head_seconds:
                self._refuse(
                    408, f"no request arrived within {self.head_seconds:g} seconds; send it at once"
                )
        elif elapsed > self.request_seconds:
            self.transport.abort()

    @staticmethod
    def refusal(status: int, message: str) -> bytes:
        """The body of an answer to what is refused here."""
        return json.dumps({"status": status, "message": message}).encode() + b"\n"

    def _refuse(self, status: int, message: str) -> None:
        """Answer a refusal and close; but first the answer that is still due, if there is one."""
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:  # the request is whole, and what followed it is not
                self.cycle.keep_alive = False
                self.flow.pause_reading()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = self.refusal(status, message)
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.waiting.pop(self, None)
        self.transport.write(head.encode() + body)
        self.transport.close()


_LARGE_HEAD = 431, f"the head is larger than {MAX_HEAD} bytes; send fewer or shorter headers"
