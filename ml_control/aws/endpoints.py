"""Endpoints on SageMaker: a model, a configuration and an endpoint for each name.

What is to serve is reached step by step from what is there (``core.endpoint_steps``), so a deployer
that takes over from one that died adopts what that began. What is known of an endpoint beside what
SageMaker says is one item of the registry (:mod:`ml_control.aws.endpoint_turns`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from ml_control.aws.client import Clients
from ml_control.aws.endpoint_changes import Changes, Times
from ml_control.aws.endpoint_invocations import Invocations
from ml_control.aws.endpoint_parts import Parts, Running, described, endpoint_name
from ml_control.aws.endpoint_turns import Turns
from ml_control.core.containers import container as container_of
from ml_control.core.deploy_plan import require_deployable
from ml_control.core.endpoint_steps import BROKEN
from ml_control.errors import InvalidSpec
from ml_control.lake import Lake
from ml_control.ports import EndpointState, Reply, Tables
from ml_control.spec import Endpoint

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_FRESH_SECONDS = 1.0  # an update takes minutes to serve: what was seen now holds so long


class SageMakerEndpoints:
    """Implements :class:`ml_control.ports.Endpoints` with SageMaker's real-time endpoints."""

    on_this_machine = False

    def __init__(
        self,
        clients: Clients,
        lake: Lake,
        tables: Tables,
        *,
        times: Times | None = None,
        fresh_seconds: float = _FRESH_SECONDS,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``times`` says how gently SageMaker is polled; the rest is for tests."""
        self._clients = clients
        self._turns = Turns(tables, clock, sleep)
        self._parts = Parts(clients, lake)
        self._changes = Changes(clients, self._parts, self._turns, times or Times(), sleep, clock)
        self._invocations = Invocations(clients, self._may_answer, fresh_seconds)

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
        """Serve this archive under this name and wait until it is InService.

        What serves already is left, and what a deployer that died began is adopted. ``timeout`` in
        seconds bounds the wait for another deployer and, again, the deployment. Raises
        ``PlatformFailed`` with SageMaker's reason and the end of the log (``Retryable`` where only
        capacity lacks): a failed update leaves what served before, a failed creation nothing.
        ``Conflict`` when one with a higher ``token`` was here since or another does not finish;
        ``InvalidSpec`` for a name, container or shape that SageMaker would refuse. An endpoint of
        another installation of this account is ``PlatformFailed`` too.
        """
        real = self._real(name)
        container_of(container)
        hosting = require_deployable(name, shape)
        image = self._parts.image(container)
        wanted = self._parts.wanted(name, archive, model_version, container, image, hosting)
        carried = self._changes.claimed(real)
        with self._turns.taken(name, token, timeout, carried) as turn:
            self._changes.serve(turn, wanted, archive, timeout)
        self._invocations.forget(name)
        return self.describe(name)

    def describe(self, name: str) -> EndpointState:
        """What the endpoint is doing now; never raises for an absent one.

        ``archive_sha256`` in the detail is that of what SageMaker runs, or goes to if that is not
        ours; it is empty for anything but exactly one of our deployments.
        """
        real = self._real(name)
        known = self._turns.read(name)
        found = self._look(real)
        served, failed = known.get("served") or {}, known.get("failed") or {}
        if found is None or found["EndpointStatus"] == "Deleting":
            if self._turns.is_held(known):
                return EndpointState(name, "Creating")
            if failed:
                version, why = str(failed["model_version"]), str(failed["reason"])
                return EndpointState(name, "Failed", "", version, why)
            if not served:
                return EndpointState(name, "Missing", reason="never deployed")
            why = "stopped" if known.get("stopped") else "it was deleted in SageMaker"
            kept = {"archive_sha256": served["archive_sha256"]}
            return EndpointState(name, "Missing", "", str(served["model_version"]), why, kept)
        status, reason = str(found["EndpointStatus"]), str(found.get("FailureReason", ""))
        runs = self._shown(found)
        detail: dict[str, Any] = {
            "endpoint": real,
            "status": status,
            "config": str(found.get("EndpointConfigName", "")),
            "container": runs.container,
            "archive_sha256": runs.archive,
            "at": found["LastModifiedTime"].timestamp(),
        }
        if failed:
            detail["last_failure"] = failed
        if runs.replaced:
            detail["replaced"] = runs.replaced
        version = runs.model_version
        if status == "Creating":
            return EndpointState(name, "Creating", "", version, reason, detail)
        if status in BROKEN:
            return EndpointState(name, "Failed", "", version, reason or status, detail)
        url = self._invocations.url(real)
        return EndpointState(name, "InService", url, version, detail=detail)

    def invoke(
        self,
        name: str,
        body: bytes,
        content_type: str = "text/csv",
        accept: str = "text/csv",
        archive: str = "",
        seconds: float = 0.0,
    ) -> Reply:
        """One request, answered within ``seconds`` if given. With ``archive``, only while nothing
        but these bytes can answer.

        What the container refuses is a reply with its status. Raises ``Retryable`` when the
        endpoint is not there, busy or does not answer.
        """
        return self._invocations.invoke(
            name, self._real(name), body, content_type, accept, archive, seconds
        )

    def stop(self, name: str) -> None:
        """Delete the endpoint and what it is made of; deploying again brings it back.

        An endpoint in mid-update is waited for. Raises ``Retryable`` when that takes too long,
        ``PlatformFailed`` when it is another installation's.
        """
        real = self._real(name)
        if not self._turns.read(name) and self._look(real) is None:
            return
        self._changes.claimed(real)
        with self._turns.taken(name, None, self._changes.times.stop) as turn:
            self._changes.stop(turn, real)
        self._invocations.forget(name)

    def names(self) -> list[str]:
        """The endpoints that were deployed from here, serving or not, sorted."""
        return self._turns.names()

    def _may_answer(self, name: str) -> set[str] | None:
        """Digests of all archives that may answer now, "" among them for unknown ones.

        None while it is not serving.
        """
        found = self._look(self._real(name))
        if found is None or found["EndpointStatus"] in (*BROKEN, "Creating", "Deleting"):
            return None
        configs = [found.get("EndpointConfigName"), _pending(found)]
        at = found["LastModifiedTime"]
        return {self._parts.running(config, at).archive for config in configs if config}

    def _shown(self, found: dict[str, Any]) -> Running:
        """What runs; what it goes to instead, if that is not one of our deployments."""
        at = found["LastModifiedTime"]
        runs = self._parts.running(str(found.get("EndpointConfigName", "")), at)
        if pending := _pending(found):
            coming = self._parts.running(pending, at)
            return runs if coming.archive else coming
        return runs if found["EndpointStatus"] != "UpdateRollbackFailed" else Running()

    def _look(self, real: str) -> dict[str, Any] | None:
        sagemaker = self._clients.client("sagemaker")
        return described(lambda: sagemaker.describe_endpoint(EndpointName=real), f"endpoint {real}")

    def _real(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise InvalidSpec(
                f"endpoint {name!r}",
                "is not a usable name",
                "use 1 to 63 letters, digits, '-' and '_', with a letter or digit at both ends",
            )
        settings = self._clients.settings
        return endpoint_name(settings.project, name, settings.environment)


def _pending(found: dict[str, Any]) -> str:
    """The configuration that an update goes to."""
    return str((found.get("PendingDeploymentSummary") or {}).get("EndpointConfigName", ""))
