"""The endpoint server's routes: an ASGI application for one model.

The routes and statuses are those of the SageMaker XGBoost container, and beside them those of
SageMaker Runtime, so that a ``boto3`` client pointed here works unchanged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from ml_control.serving.answering import Answering
from ml_control.serving.deployed import Deployment
from ml_control.serving.http import (
    Gone,
    Header,
    Inbox,
    Receive,
    Response,
    Scope,
    Send,
    headers_of,
    log,
    respond,
)
from ml_control.serving.invocations import JSON, Output, choose_accept, choose_reader
from ml_control.serving.predictor import Predictor
from ml_control.serving.refused import Refused

READ_SECONDS = 60.0


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
        self._answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; whatever happens, with a status and a sentence."""
        if scope["type"] != "http":
            return
        headers = headers_of(scope)
        inbox = Inbox(receive, headers, self._limit)
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
        await respond(answer, (self._origin,), inbox, send)

    async def _route(
        self, method: str, path: str, headers: Mapping[str, str], inbox: Inbox
    ) -> Response:
        if path in {"/invocations", self._runtime_path}:
            _only("POST", method, path)
            return await self._invocation(headers, inbox)
        if path == "/ping":
            _only("GET", method, path)
            return Response(200)
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
            served["answered"] = self._answered  # invocations since it started
            return _json(served, headers=((b"x-ml-control-proof", self._proof),))
        if path.startswith("/endpoints/"):
            raise Refused(404, f"this server has only the endpoint {self._deployment.name!r}")
        raise Refused(404, f"there is no {path!r} here; POST /invocations or GET /ping")

    async def _invocation(self, headers: Mapping[str, str], inbox: Inbox) -> Response:
        expected = headers.get("x-ml-control-instance", self._deployment.instance)
        if expected != self._deployment.instance:
            raise Refused(421, "another deployment was meant; look its port up again")
        inbox.require_bounded()
        read = choose_reader(headers.get("content-type"))
        accept = headers.get("accept")
        choose_accept(accept, self._output)
        body = await inbox.read(self._read_seconds)
        response = Response(*await self._answering.answer(read, body, accept, inbox.hung_up))
        self._answered += 1
        return response


def _only(allowed: str, method: str, path: str) -> None:
    if method != allowed:
        raise Refused(405, f"{path} takes {allowed} only, not {method}")


def _json(value: object, headers: tuple[Header, ...] = ()) -> Response:
    return Response(200, JSON, json.dumps(value, separators=(",", ":")).encode(), headers)


def _refusal(refused: Refused) -> Response:
    if refused.status == 204:
        return Response(204)
    body = json.dumps({"status": refused.status, "message": refused.reason}).encode() + b"\n"
    return Response(refused.status, JSON, body)


def _as_runtime(answer: Response) -> Response:
    """The answer as SageMaker Runtime passes it on: a container's refusal is a ``ModelError``."""
    variant = (b"x-amzn-invoked-production-variant", b"AllTraffic")
    if answer.status < 400:
        return Response(answer.status, answer.kind, answer.body, (*answer.headers, variant))
    told = json.loads(answer.body)["message"]
    side = "CLIENT" if answer.status < 500 else "SERVER"
    body = {
        "ErrorCode": f"{side}_ERROR_FROM_MODEL",
        "Message": f"Received {side.lower()} error ({answer.status}) from primary: {told}",
        "OriginalMessage": told,
        "OriginalStatusCode": answer.status,
    }
    kind = (b"x-amzn-errortype", b"ModelError")
    return Response(424, JSON, json.dumps(body).encode(), (variant, kind))
