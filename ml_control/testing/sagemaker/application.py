"""Which operation a request means, whether it may go through, and what is answered."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ml_control.testing.sagemaker.director import PUBLIC, Director
from ml_control.testing.sagemaker.invoke import Runtime
from ml_control.testing.sagemaker.protocol import check_answer, check_request
from ml_control.testing.sagemaker.refused import Dropped, Refused
from ml_control.testing.sagemaker.state import Record

Operation = Callable[[Mapping[str, Any]], Record]
_INVOKE = re.compile(r"/endpoints/([^/]+)/invocations")
_JSON = "application/x-amz-json-1.1"
_RUNTIME = {
    "Content-Type": "ContentType",
    "Accept": "Accept",
    "X-Amzn-SageMaker-Custom-Attributes": "CustomAttributes",
    "X-Amzn-SageMaker-Target-Model": "TargetModel",
    "X-Amzn-SageMaker-Target-Variant": "TargetVariant",
    "X-Amzn-SageMaker-Inference-Id": "InferenceId",
    "X-Amzn-SageMaker-Inference-Component": "InferenceComponentName",
}


@dataclass(frozen=True)
class Reply:
    """A whole HTTP response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Application:
    """Answers requests; holds no state of its own."""

    def __init__(
        self,
        operations: Mapping[str, Mapping[str, Operation]],
        runtime: Runtime,
        director: Director,
    ) -> None:
        """``operations`` by target prefix: ``SageMaker`` and ``Logs_20140328``."""
        self._operations = operations
        self._runtime = runtime
        self._director = director

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request, ``headers`` by lower-case names. Raises ``Dropped``."""
        path = path.partition("?")[0]
        if path.startswith("/_fake/"):
            return self._direct(method, path.removeprefix("/_fake/"), body)
        if invoked := _INVOKE.fullmatch(path):
            return self._invoke(unquote(invoked[1]), headers, body)
        prefix, _, operation = headers.get("x-amz-target", "").partition(".")
        try:
            if method != "POST" or prefix not in self._operations:
                raise Refused("UnknownOperationException", f"nothing answers {method} {path}")
            found = self._json(prefix, operation, body)
        except Refused as refused:
            said = {"__type": refused.code, "message": refused.message}
            return _reply(refused.status, json.dumps(said).encode(), _JSON)
        return _reply(200, json.dumps(found).encode(), _JSON)

    def _json(self, prefix: str, operation: str, body: bytes) -> Record:
        service = "sagemaker" if prefix == "SageMaker" else "logs"
        try:
            request = json.loads(body or b"{}")
        except ValueError as error:
            raise Refused("SerializationException", f"the body is not JSON: {error}") from error
        if not isinstance(request, dict):
            raise Refused("SerializationException", "the body is not a JSON object")
        names = [str(value) for key, value in request.items() if key.endswith("Name")]
        hang = self._before(operation, names)
        check_request(service, operation, request)
        task = self._operations[prefix].get(operation)
        if task is None:
            raise Refused(
                "UnknownOperationException", f"{operation} is not implemented by this double"
            )
        found = task(request)
        check_answer(service, operation, found)
        if hang is not None:
            time.sleep(hang)
            raise Dropped
        return found

    def _before(self, operation: str, names: list[str]) -> float | None:
        """Faults of a call. Seconds to hang after it is done, when its answer will be lost.

        Raises ``Refused``.
        """
        throttled, lost, delay = self._director.called(operation)
        time.sleep(delay)
        plan = self._director.take(operation, *names)
        if plan is not None and plan.kind == "fail":
            raise Refused(plan.detail["code"], plan.detail["message"], plan.detail["status"])
        if throttled:
            raise Refused("ThrottlingException", f"Rate exceeded (seed {self._director.seed})", 400)
        if plan is not None:
            return float(plan.detail["hang"])
        return 0.0 if lost else None

    def _invoke(self, name: str, headers: Mapping[str, str], body: bytes) -> Reply:
        given = {
            member: headers[header.lower()]
            for header, member in _RUNTIME.items()
            if header.lower() in headers
        }
        try:
            hang = self._before("InvokeEndpoint", [name])
            check_request(
                "sagemaker-runtime", "InvokeEndpoint", {"EndpointName": name, **given, "Body": b""}
            )
            found = self._runtime.invoke(name, headers, body)
        except Refused as refused:
            return _runtime_refusal(refused)
        if hang is not None:
            time.sleep(hang)
            raise Dropped
        return Reply(found.status, found.body, {**found.headers, "x-amzn-RequestId": _id()})

    def _direct(self, method: str, what: str, body: bytes) -> Reply:
        """A call of the director over HTTP."""
        try:
            if method != "POST" or what not in PUBLIC:
                raise ValueError(f"POST one of {', '.join(PUBLIC)}")
            result = getattr(self._director, what)(**json.loads(body or b"{}"))
        except (ValueError, TypeError) as error:
            said = {"error": str(error)}
            return _reply(400, json.dumps(said).encode(), "application/json")
        return _reply(200, json.dumps({"result": result}).encode(), "application/json")


def _reply(status: int, body: bytes, kind: str) -> Reply:
    return Reply(status, body, {"Content-Type": kind, "x-amzn-RequestId": _id()})


def _runtime_refusal(refused: Refused) -> Reply:
    more = dict(refused.more)
    variant = more.pop("variant", None)
    code = refused.code
    body = json.dumps({"Message": refused.message, "message": refused.message, **more}).encode()
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": _id()}
    headers["x-amzn-ErrorType"] = code
    if variant:
        headers["x-Amzn-Invoked-Production-Variant"] = variant
    return Reply(refused.status, body, headers)


def _id() -> str:
    return str(uuid.uuid4())
