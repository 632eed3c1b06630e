"""An HTTP/1.1 client for the endpoints: connections kept alive, one request on each, times bounded.

An answer counts only if it comes from the deployment that was looked up and that serves the model
asked for, so that a server that was replaced a moment ago is not taken for the one before.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools

from ml_control.errors import Retryable
from ml_control.ports import EndpointState, Reply
from ml_control.serving.handlers.steps import Served

MAX_CONNECTIONS = 64  # to one endpoint; the others wait for one
_GONE_SECONDS = 0.5  # an endpoint that is not there is not looked up again for so long
_TRIES = 3
_ORIGIN = b"x-ml-control-instance"
Describe = Callable[[str], Awaitable[EndpointState]]


@dataclass
class _Target:
    """A server that was looked up, with the connections to it."""

    host: str
    port: int
    instance: bytes
    model_version: str
    archive: str
    idle: list[_Connection] = field(default_factory=list)
    open: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    forgotten: bool = False


class _Broken(Exception):
    """The connection ended before the answer did."""


class _Connection(asyncio.Protocol):
    """One connection; it reads one answer at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._answer: asyncio.Future[Reply] | None = None
        self._parser: Any = None
        self._status = 0
        self.origin = b""
        self._kind = ""
        self._parts: list[bytes] = []
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended: whoever waits for an answer is told."""
        self.usable = False
        self._fail(str(exc or "the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, AttributeError):
            self._fail("no HTTP answer")
            self.close()

    def request(self, data: bytes) -> asyncio.Future[Reply]:
        """Send a request; its answer comes as the future's result, or ``_Broken``."""
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._parts, self.origin, self._kind = [], b"", ""
        self._transport.write(data)
        return self._answer

    def close(self) -> None:
        """End it now."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser found a header."""
        name = name.lower()
        if name == _ORIGIN:
            self.origin = value
        elif name == b"content-type":
            self._kind = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """The parser found a part of the body."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self.usable = self.usable and self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            reply = Reply(self._parser.get_status_code(), b"".join(self._parts), self._kind)
            self._answer.set_result(reply)

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_Broken(why))


class Upstream:
    """Asks endpoints. ``describe`` looks one up; ``seconds`` bound a request from end to end."""

    def __init__(self, describe: Describe, seconds: float) -> None:
        self._describe = describe
        self._seconds = seconds
        self._targets: dict[str, _Target] = {}
        self._looking: dict[str, asyncio.Task[_Target]] = {}
        self._gone: dict[str, tuple[float, Retryable]] = {}

    async def invoke(self, served: Served, rows: bytes) -> Reply:
        """The endpoint's reply to rows of CSV. Raises ``Retryable``."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._invoke(served, rows)
        except TimeoutError:
            raise Retryable(
                f"endpoint {served.endpoint}",
                f"did not answer within {self._seconds:g} s",
                "see its server.log",
            ) from None

    async def _invoke(self, served: Served, rows: bytes) -> Reply:
        why = "is not serving"
        for _ in range(_TRIES):
            target = self._targets.get(served.endpoint) or await self._look_up(served.endpoint)
            if target.model_version != served.model_version or (
                target.archive and target.archive != served.archive
            ):
                self._forget(served.endpoint, target)
                why = f"serves model {target.model_version[:12]}, not the one asked for"
                await asyncio.sleep(0.02)
                continue
            try:
                reply, origin = await self._ask(target, rows)
            except (_Broken, OSError) as error:
                why = f"cannot be reached: {error or type(error).__name__}"
            else:
                if origin == target.instance and reply.status != 421:
                    return reply
                why = "another program answers on its port"
            self._forget(served.endpoint, target)
        raise Retryable(f"endpoint {served.endpoint}", why, "see 'ml-control status'")

    async def _ask(self, target: _Target, rows: bytes) -> tuple[Reply, bytes]:
        connection = await self._connect(target)
        data = (
            b"POST /invocations HTTP/1.1\r\nhost: endpoint\r\ncontent-type: text/csv\r\n"
            b"accept: text/csv\r\n%s: %s\r\ncontent-length: %d\r\n\r\n"
        ) % (_ORIGIN, target.instance, len(rows)) + rows
        try:
            reply = await connection.request(data)
            return reply, connection.origin
        except BaseException:
            connection.close()  # also at a timeout: its answer would be taken for the next one's
            raise
        finally:
            self._give_back(target, connection)

    async def _connect(self, target: _Target) -> _Connection:
        while True:
            while target.idle:
                connection = target.idle.pop()
                if connection.usable:
                    return connection
                target.open -= 1
            if target.open < MAX_CONNECTIONS:
                break
            turn = asyncio.get_running_loop().create_future()
            target.waiting.append(turn)
            await turn
        target.open += 1
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, target.host, target.port
            )
        except BaseException:
            target.open -= 1
            raise
        return connection

    def _give_back(self, target: _Target, connection: _Connection) -> None:
        if connection.usable and not target.forgotten:
            target.idle.append(connection)
        else:
            connection.close()
            target.open -= 1
        while target.waiting:
            turn = target.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break

    async def _look_up(self, name: str) -> _Target:
        """The server of an endpoint, looked up once for all who ask. Raises ``Retryable``."""
        until, error = self._gone.get(name, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise Retryable(error.object, error.reason, error.next)
        task = self._looking.get(name)
        if task is None:
            task = self._looking[name] = asyncio.ensure_future(self._find(name))
            task.add_done_callback(lambda _: self._looking.pop(name, None))
        return await asyncio.shield(task)

    async def _find(self, name: str) -> _Target:
        state = await self._describe(name)
        if state.state != "InService":
            error = Retryable(f"endpoint {name}", "is not serving", "see 'ml-control status'")
            self._gone[name] = (time.monotonic() + _GONE_SECONDS, error)
            raise error
        self._gone.pop(name, None)
        address = urlsplit(state.url)
        target = self._targets[name] = _Target(
            address.hostname or "",
            address.port or 80,
            str(state.detail.get("instance", "")).encode(),
            state.model_version,
            str(state.detail.get("archive_sha256", "")),
        )
        return target

    def _forget(self, name: str, target: _Target) -> None:
        if self._targets.get(name) is target:
            del self._targets[name]
        target.forgotten = True
        for connection in target.idle:
            connection.close()
        target.open -= len(target.idle)
        target.idle.clear()

    def close(self) -> None:
        """End every connection that waits."""
        for name, target in list(self._targets.items()):
            self._forget(name, target)
