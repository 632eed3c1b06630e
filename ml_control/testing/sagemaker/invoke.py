"""SageMaker Runtime: an invocation of an endpoint, answered by its servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_control.testing.sagemaker.capture import Capture
from ml_control.testing.sagemaker.configs import is_serverless
from ml_control.testing.sagemaker.director import Director
from ml_control.testing.sagemaker.endpoints import KIND
from ml_control.testing.sagemaker.hosts import Host
from ml_control.testing.sagemaker.logs import ENDPOINTS
from ml_control.testing.sagemaker.refused import Refused
from ml_control.testing.sagemaker.state import Account, Record

LIMIT = 6 << 20
SERVERLESS_LIMIT = 4 << 20
_SERVING = ("InService", "Updating", "RollingBack", "SystemUpdating", "UpdateRollbackFailed")
_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """An answer of an endpoint."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class _Gone(Exception):
    """The server cannot be reached: it was replaced, or has died."""


class Runtime:
    """Invocations. Any number of threads may use it."""

    def __init__(self, account: Account, director: Director, capture: Capture) -> None:
        import httpx

        self._account = account
        self._director = director
        self._capture = capture
        self._client = httpx.Client(trust_env=False, timeout=httpx.Timeout(_SECONDS, connect=5.0))

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def invoke(self, name: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """InvokeEndpoint. ``headers`` by lower-case names. Raises ``Refused``."""
        with self._account.lock:
            record = self._account.records[KIND].get(name)
            if record is None or record["EndpointStatus"] not in _SERVING or not record["_hosts"]:
                raise Refused(
                    "ValidationError",
                    f"Endpoint {name} of account {self._account.account} not found.",
                )
            serverless = is_serverless(record["_config"])
            variant, host = self._choose(record, headers)
        most = SERVERLESS_LIMIT if serverless else LIMIT
        if len(body) > most:
            raise Refused(
                "413", f"Request body of {len(body)} bytes is larger than {most} bytes.", 413
            )
        plan = self._director.take("invoke", name)
        if plan is not None and plan.kind == "not_ready":
            raise Refused(
                "ModelNotReadyException",
                "The model for this endpoint is not ready to serve inference requests.",
                429,
            )
        if plan is not None:
            raise self._model_error(name, plan.detail["status"], plan.detail["message"], variant)
        try:
            try:
                answer = self._ask(name, variant, host, headers, body)
            except _Gone:
                with self._account.lock:
                    variant, host = self._choose(record, headers)  # replaced since we chose
                answer = self._ask(name, variant, host, headers, body)
        except _Gone as error:
            # The container died: AWS starts it anew, which this double does not.
            raise Refused("ServiceUnavailable", f"the container is gone: {error}", 503) from error
        asked = headers.get("content-type", ""), body
        said = answer.headers.get("Content-Type", ""), answer.body
        self._capture.take(record, variant, asked, said)
        return answer

    def _choose(self, record: Record, headers: Mapping[str, str]) -> tuple[str, Host]:
        """The variant that was named, or one drawn by weight."""
        hosts, variants = record["_hosts"], record["_variants"]
        named = headers.get("x-amzn-sagemaker-target-variant")
        if named is not None:
            if named not in hosts:
                raise Refused(
                    "ValidationError",
                    f"Variant {named} not found for Endpoint {record['EndpointName']} of account "
                    f"{self._account.account}.",
                )
            return named, hosts[named]
        names = list(hosts)
        weights = [variants[name]["CurrentWeight"] for name in names]
        if not sum(weights):
            raise Refused("ValidationError", "Every variant of this endpoint has weight 0.")
        name = names[self._director.weighted(weights)] if len(names) > 1 else names[0]
        return name, hosts[name]

    def _ask(
        self, name: str, variant: str, host: Host, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        import httpx

        passed = {key: headers[key] for key in ("content-type", "accept") if key in headers}
        try:
            reply = self._client.post(f"{host.url}/invocations", content=body, headers=passed)
        except httpx.TimeoutException as error:
            raise self._model_error(
                name, 504, "Model server did not answer within 60 seconds", variant
            ) from error
        except httpx.TransportError as error:
            raise _Gone(str(error)) from error
        if reply.status_code >= 400:
            raise self._model_error(name, reply.status_code, _told(reply.content), variant)
        answer = {"x-Amzn-Invoked-Production-Variant": variant}
        if kind := reply.headers.get("content-type"):
            answer["Content-Type"] = kind
        if custom := headers.get("x-amzn-sagemaker-custom-attributes"):
            answer["X-Amzn-SageMaker-Custom-Attributes"] = custom
        return Answer(reply.status_code, reply.content, answer)

    def _model_error(self, name: str, status: int, told: str, variant: str) -> Refused:
        region, account = self._account.region, self._account.account
        side = "client" if 400 <= status < 500 else "server"
        return Refused(
            "ModelError",
            f'Received {side} error ({status}) from primary with message "{told}". See '
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
            f"#logEventViewer:group={ENDPOINTS}/{name} in account {account} for more information.",
            424,
            OriginalStatusCode=status,
            OriginalMessage=told,
            LogStreamArn=f"arn:aws:logs:{region}:{account}:log-group:{ENDPOINTS}/{name}",
            variant=variant,
        )


def _told(body: bytes) -> str:
    """A refusal's sentence out of our endpoint server's JSON."""
    try:
        value: Any = json.loads(body)
        return str(value["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
