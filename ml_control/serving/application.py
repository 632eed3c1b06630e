"""The endpoint server's routes: an ASGI application for one model.

The routes and statuses are those of the SageMaker XGBoost container, and beside them those of
SageMaker Runtime, so that a ``boto3`` client pointed here works unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_control.serving.answering import Answering, Gone
from ml_control.serving.deployed import Deployment
from ml_control.serving.invocations import JSON, Output, choose_accept, choose_reader
from ml_control.serving.predictor import Predictor
from ml_control.serving.refused import Refused

READ_SECONDS = 60.0
_LINGER_BYTES = 64 << 20
_LINGER_SECONDS = 2.0

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class _Answer:
    """A whole response."""

    status: int
    kind: str = ""
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Inbox:
    """The request's body as it arrives; ``complete`` once nothing more can come."""

    def __init__(self, receive: Receive, headers: Mapping[str, str], limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self.complete = not ({"content-length", "transfer-encoding"} & headers.keys())

    async def read(self) -> bytes:
        """The whole body. Raises ``Refused`` (413) once it is too large, then reads no more."""
        parts, size = [], 0
        while not self.complete:
            part = await self._next()
            size += len(part)
            if size > self._limit:
                raise _too_large(self._limit)
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


class Application:
    """The ASGI application. ``predictors`` are several of the same model, see ``Answering``."""

    def __init__(
        self,
        deployment: Deployment,
        predictors: Sequence[Predictor],
        proof: str,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._deployment = deployment
        self._proof = proof.encode()
        # In every answer, so that a caller knows which deployment refused or predicted.
        self._origin = (b"x-ml-control-instance", deployment.instance.encode())
        self._read_seconds = read_seconds
        self._runtime_path = f"/endpoints/{deployment.name}/invocations"
        self._limit = deployment.max_content_length
        self._output = Output()
        small, *large = predictors
        if deployment.selected:
            self._output = Output(deployment.selected, small.objective, small.num_class)
        self._answering = Answering(small, large, self._output)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; whatever happens, with a status and a sentence."""
        if scope["type"] != "http":
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        inbox = _Inbox(receive, headers, self._limit)
        runtime = scope["path"] == self._runtime_path
        try:
            answer = await self._route(scope["method"], scope["path"], headers, inbox)
        except Refused as refused:
            answer = _refusal(refused)
        except Gone:
            return
        except Exception as error:
            log(f"error {scope['method']} {scope['path']}: {type(error).__name__}: {error}")
            answer = _refusal(Refused(500, f"the server failed: {type(error).__name__}: {error}"))
        if runtime:
            answer = _as_runtime(answer)
        await _respond(answer, self._origin, inbox, send)

    async def _route(
        self, method: str, path: str, headers: Mapping[str, str], inbox: _Inbox
    ) -> _Answer:
        if path in {"/invocations", self._runtime_path}:
            _only("POST", method, path)
            return await self._invocation(headers, inbox)
        if path == "/ping":
            _only("GET", method, path)
            return _Answer(200)
        if path == "/execution-parameters":
            _only("GET", method, path)
            return _json(
                {
                    "MaxConcurrentTransforms": os.cpu_count() or 1,
                    "BatchStrategy": "MULTI_RECORD",
                    "MaxPayloadInMB": self._limit >> 20,
                }
            )
        if path == "/identity":
            _only("GET", method, path)
            served = {
                key: getattr(self._deployment, key) for key in ("name", "model_version", "instance")
            }
            return _json(served, headers=((b"x-ml-control-proof", self._proof),))
        if path.startswith("/endpoints/"):
            raise Refused(404, f"this server has only the endpoint {self._deployment.name!r}")
        raise Refused(404, f"there is no {path!r} here; POST /invocations or GET /ping")

    async def _invocation(self, headers: Mapping[str, str], inbox: _Inbox) -> _Answer:
        expected = headers.get("x-ml-control-instance", self._deployment.instance)
        if expected != self._deployment.instance:
            raise Refused(421, "another deployment was meant; look its port up again")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit:
            raise _too_large(self._limit)
        read = choose_reader(headers.get("content-type"))
        accept = headers.get("accept")
        choose_accept(accept, self._output)
        try:
            async with asyncio.timeout(self._read_seconds):
                body = await inbox.read()
        except TimeoutError:
            raise Refused(
                408, f"the body did not arrive within {self._read_seconds:g} seconds; send it whole"
            ) from None
        return _Answer(*await self._answering.answer(read, body, accept, inbox.hung_up))


def _only(allowed: str, method: str, path: str) -> None:
    if method != allowed:
        raise Refused(405, f"{path} takes {allowed} only, not {method}")


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body is larger than {limit} bytes; send fewer rows at once")


def _json(value: object, headers: tuple[tuple[bytes, bytes], ...] = ()) -> _Answer:
    return _Answer(200, JSON, json.dumps(value, separators=(",", ":")).encode(), headers)


def _refusal(refused: Refused) -> _Answer:
    if refused.status == 204:
        return _Answer(204)
    body = json.dumps({"status": refused.status, "message": refused.reason}).encode() + b"\n"
    return _Answer(refused.status, JSON, body)


def _as_runtime(answer: _Answer) -> _Answer:
    """The answer as SageMaker Runtime passes it on: a container's refusal is a ``ModelError``."""
    variant = (b"x-amzn-invoked-production-variant", b"AllTraffic")
    if answer.status < 400:
        return _Answer(answer.status, answer.kind, answer.body, (*answer.headers, variant))
    told = json.loads(answer.body)["message"]
    side = "CLIENT" if answer.status < 500 else "SERVER"
    body = {
        "ErrorCode": f"{side}_ERROR_FROM_MODEL",
        "Message": f"Received {side.lower()} error ({answer.status}) from primary: {told}",
        "OriginalMessage": told,
        "OriginalStatusCode": answer.status,
    }
    kind = (b"x-amzn-errortype", b"ModelError")
    return _Answer(424, JSON, json.dumps(body).encode(), (variant, kind))


async def _respond(answer: _Answer, origin: tuple[bytes, bytes], inbox: _Inbox, send: Send) -> None:
    headers = [origin, *answer.headers]
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    if answer.kind:
        headers.append((b"content-type", answer.kind.encode()))
    if not inbox.complete:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if not inbox.complete:
        # Closing on a caller that still sends resets the connection, and it never sees the answer.
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await inbox.discard()
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": answer.body})


def log(line: str) -> None:
    """One line with the UTC time on standard error."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"{now} endpoint[{os.getpid()}] {line}", file=sys.stderr, flush=True)
