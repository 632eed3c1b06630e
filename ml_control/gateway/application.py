"""The gateway as an ASGI application: from bytes to a handler and back, within bounds."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ml_control.errors import BadObject, InvalidSpec, MlControlError, Retryable
from ml_control.gateway.audit import Audit
from ml_control.gateway.cors import Cors
from ml_control.gateway.driver import Driver
from ml_control.gateway.guard import Rates, identify, require
from ml_control.gateway.state import State
from ml_control.serving.handlers.bodies import MAX_BODY
from ml_control.serving.handlers.desk import Desk
from ml_control.serving.handlers.messages import (
    Answer,
    Caller,
    Refusal,
    Request,
    failed,
    not_found,
    refused,
)
from ml_control.serving.handlers.routes import Route, Table
from ml_control.serving.http import (
    Gone,
    Inbox,
    Receive,
    Response,
    Scope,
    Send,
    headers_of,
    log,
    respond,
)
from ml_control.serving.refused import Refused

READ_SECONDS = 30.0
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


@dataclass
class _Call:
    """A request on its way, as far as it is known."""

    method: str
    path: str
    headers: dict[str, str]
    address: str
    inbox: Inbox
    caller: Caller = field(default_factory=Caller)
    body: bytes = b""
    route: Route | None = None
    methods: dict[str, Route] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


class Gateway:
    """The ASGI application."""

    def __init__(
        self,
        *,
        state: State,
        desk: Desk,
        table: Table,
        driver: Driver,
        audit: Audit,
        pool: ThreadPoolExecutor,
        clock: Callable[[], float] = time.time,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        settings = state.platform.settings
        self._state = state
        self._desk = desk
        self._table = table
        self._driver = driver
        self._audit = audit
        self._pool = pool
        self._clock = clock
        self._read_seconds = read_seconds
        self._keys = settings.gateway_keys
        self._rates = Rates(settings.rate_limit)
        self._cors = Cors(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; whatever happens, with a status and a typed error."""
        if scope["type"] != "http":
            return
        headers = headers_of(scope)
        client = scope.get("client")
        inbox = Inbox(receive, headers, MAX_BODY, "records")
        call = _Call(scope["method"], scope["path"], headers, client[0] if client else "", inbox)
        try:
            answer = await self._answer(call)
        except Gone:
            return
        if call.route is not None and call.route.access == "manage":
            answer = await self._audited(call, answer)
        head = [*_ALWAYS, *self._origin(call)]
        head += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        response = Response(answer.status, answer.kind if answer.body else "", answer.body)
        await respond(response, tuple(head), inbox, send)

    async def _answer(self, call: _Call) -> Answer:
        try:
            return await self._handle(call)
        except (MlControlError, Refusal) as error:
            return refused(error)
        except Refused as error:  # of the body, before a handler has seen it
            kind = Retryable if error.status == 408 else BadObject
            reason, _, step = error.reason.partition("; ")
            return refused(Refusal(error.status, kind("body", reason, step)))
        except Gone:
            raise
        except Exception as error:
            # Where, and what kind of error; its words may hold what a caller sent.
            place = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
            log(f"error {call.method} {call.path!r}: {type(error).__name__} at {at}", "gateway")
            return failed(type(error).__name__)

    async def _handle(self, call: _Call) -> Answer:
        call.methods, call.parameters = self._table.find(call.path)
        if call.method == "OPTIONS" and call.methods:
            return Answer(204, kind="")
        if not call.methods:
            raise not_found(call.path)
        route = call.route = call.methods.get(call.method)
        if route is None:
            allowed = ", ".join(sorted(call.methods))
            error = InvalidSpec(call.path[:80], f"takes {allowed}, not {call.method[:20]}", "")
            raise Refusal(405, error, allow=allowed)
        await self._admit(call, route)
        if route.takes is not None:
            call.body = await self._body(call, route.accepts)
        request = Request(call.method, call.path, call.headers, call.body, call.caller)
        steps = route.handler(request, self._desk, **call.parameters)
        return await self._driver.run(steps, len(call.body))

    async def _admit(self, call: _Call, route: Route) -> None:
        """Let the caller in, or raise ``Refusal``: 401, 403 or 429."""
        needed = route.access == "manage" or (self._keys and route.access != "open")
        call.caller = Caller(address=call.address)
        if route.access == "open" or not (needed or "authorization" in call.headers):
            self._rates.take(call.caller)
            return
        try:
            tokens = self._state.tokens.now()
            if tokens is None:
                tokens = await self._state.tokens.get()
            now = self._clock()
            call.caller = identify(call.headers, call.address, tokens, now)
        finally:
            self._rates.take(call.caller)  # who guesses tokens is counted as well
        managers = any(t.role == "manager" and t.state(now) == "valid" for t in tokens.values())
        require(route.access, call.caller, keys=self._keys, managers=managers)

    async def _body(self, call: _Call, wanted: str) -> bytes:
        kind = call.headers.get("content-type", "")
        if kind != wanted and kind.partition(";")[0].strip().lower() != wanted:
            error = BadObject("body", f"is {kind[:80]!r}, not {wanted}", f"send it as {wanted}")
            raise Refusal(415, error)
        call.inbox.require_bounded()
        return await call.inbox.read(self._read_seconds)

    async def _audited(self, call: _Call, answer: Answer) -> Answer:
        """The answer, once the call is written down; if it cannot be, that is the answer."""
        command = call.path.rpartition("/")[2]
        pipeline = call.parameters["pipeline"]
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._pool, self._audit.note, call.caller, command, pipeline, call.body, answer
            )
        except OSError as error:
            log(f"the audit file could not be written: {error.strerror}", "gateway")
        return answer

    def _origin(self, call: _Call) -> Any:
        asked = call.method == "OPTIONS" and call.methods
        if asked:
            return self._cors.preflight(call.headers, call.methods)
        return self._cors.headers(call.headers)
