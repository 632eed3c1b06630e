"""A real gateway before real endpoint servers, and how to talk to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

TUMOURS = "tumours"
STARTS = 60.0


def two_variants(home: Any) -> None:
    """Put the trained model live on a, and another one as its challenger on b with half."""
    from ml_control.services.releases.deployment import deploy, route
    from ml_control.services.releases.reconcile import STAGE

    def quiet(_: str) -> None:
        return None

    deploy(home.platform, home.pipeline(), "setup", quiet)
    route(home.platform, home.pipeline(), "setup", quiet)
    file = home.pipelines / TUMOURS / "defs.yaml"
    document = yaml.safe_load(file.read_text("utf-8"))
    attributes = document["attributes"]
    attributes["training"]["hyperparameters"] = {"num_round": 40, "max_depth": 3, "eta": 0.2}
    attributes["gates"] = {"metrics": {"auc": {"min": 0.8}}, "champion": {"margin": 0.2}}
    file.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    assert home.train().verdict.passed
    deployed = deploy(home.platform, home.pipeline(), "setup", quiet)
    assert "b" == deployed.variant
    split(home, 0.5, id="tumours-2")
    assert STAGE == "deploy"


def split(home: Any, share: float, **changes: Any) -> None:
    """Write the challenger's share into the Rollout."""
    from ml_control.services.releases.reconcile import STAGE

    registry = home.platform.registry
    rollout = registry.rollouts.get(TUMOURS)
    weights = {"a": 1.0 - share, "b": share}
    after = rollout.model_copy(
        update={
            "weights": weights,
            "challenger": "b",
            "state": "in_progress",
            "phase": "experiment",
            **changes,
        }
    )
    with registry.leases.hold(TUMOURS, STAGE, "setup") as lease:
        registry.rollouts.write(
            rollout,
            after,
            registry.leases.fence(lease),
            action="traffic",
            because="the test says so",
            actor="setup",
        )


def records(home: Any, count: int) -> list[dict[str, float]]:
    """Records of the pipeline, taken from its samples."""
    import csv

    from ml_control.testing.samples import write_tumours

    (file,) = write_tumours(home.root / "samples", home.days[:1])
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    plain = [{k: float(v) for k, v in row.items() if k != "diagnosis"} for row in rows]
    return [plain[i % len(plain)] for i in range(count)]


class RunningGateway:
    """The gateway's process on a home."""

    def __init__(self, home: Any, read_seconds: float = 30.0, **variables: Any) -> None:
        self.home = home
        self.log = home.path / "logs" / "gateway.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.token = ""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._environment = {
            **os.environ,
            "ML_CONTROL_HOME": str(home.path),
            "ML_CONTROL_PIPELINES": str(home.pipelines),
            **{f"ML_CONTROL_{name.upper()}": str(value) for name, value in variables.items()},
        }
        self._options = ["--port", str(self.port), "--read-seconds", str(read_seconds)]
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ml_control.gateway", *self._options],
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        deadline = time.monotonic() + STARTS
        while True:
            try:
                if self.ask("GET", "/healthz")[0] == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, Any]:
        """(status, what the answer's JSON says, its headers), on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = dict(headers or {})
        if body is not None and "content-type" not in sent:
            sent["content-type"] = "application/json"
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, body=data, headers=sent)
            response = connection.getresponse()
            answer = response.read()
            return response.status, json.loads(answer) if answer else None, response.headers
        finally:
            connection.close()

    def raw(self, data: bytes, wait: float = 10.0) -> bytes:
        """What comes back for bytes written as they are, until it closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(data)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM, and wait; gives its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(45)


class ThreadedGateway(RunningGateway):
    """A gateway in a thread of this process, with commands of the test's own."""

    def __init__(self, home: Any, commands: Any = None, **changes: Any) -> None:
        import dataclasses

        settings = home.settings.model_copy(update=changes)
        self._platform = dataclasses.replace(home.platform, settings=settings)
        self._commands = commands
        super().__init__(home)

    def start(self) -> None:
        """Start it and wait until it answers."""
        import uvicorn

        from ml_control.gateway.assembly import assemble

        self.gateway = assemble(self._platform, commands=self._commands or {}, read_seconds=5.0)
        config = uvicorn.Config(
            self.gateway.application, port=self.port, lifespan="off", log_config=None
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + STARTS
        while not self.server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> int:
        """Stop it and end its threads."""
        self.server.should_exit = True
        self.thread.join(30)
        self.gateway.close()
        return 0


def fuzz(port: int, examples: int, token: str = "") -> set[str]:
    """Ask everything that the OpenAPI document allows, and what it does not; gives the paths.

    Fails on a server error, and on a status, content type or body that the document has not.
    503 and 502 are refusals that it has: only a fault of our own is an error.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode
    from schemathesis.checks import CHECKS, load_all_checks

    names = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
    load_all_checks()
    promised = [CHECKS.get_one(name) for name in names]
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    asked: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases)
            def ask(case: Any) -> None:
                response = case.call(headers=headers)
                assert response.status_code != 500, response.text
                case.validate_response(response, checks=promised)
                asked.add(case.operation.path)

            with suppress(Unsatisfiable):  # there may be no way to get it wrong
                ask()
    return asked


def server_of(home: Any, variant: str) -> int:
    """The process of a variant's endpoint server."""
    folder = Path(home.path) / "endpoints" / f"{TUMOURS}-{variant}"
    current = json.loads((folder / "current.json").read_text())
    found = json.loads((folder / current["instance"] / "server.json").read_text())
    return int(found["pid"])
