"""An installation on ``platform: aws``: emulators, a running ``dagster dev`` and a gateway."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from aws_home import aws_variables

from ml_control.settings import AwsSettings

PIPELINE = "tumours"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cloud:
    """A home without state of its own: what it knows is in the account."""

    def __init__(self, home: Path, pipelines: Path, settings: AwsSettings) -> None:
        self.home, self.pipelines, self.aws = home, pipelines, settings
        self.home.mkdir(parents=True, exist_ok=True)
        (home / "dagster").mkdir(exist_ok=True)
        self.ui = free_port()
        self.gateway = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            **aws_variables(settings),
            "ML_CONTROL_PLATFORM": "aws",
            "ML_CONTROL_HOME": str(home),
            "ML_CONTROL_PIPELINES": str(pipelines),
            "ML_CONTROL_LEASE_SECONDS": "10",
            "ML_CONTROL_GATEWAY_TIMEOUT": "20",
            "DAGSTER_HOME": str(home / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start a process of the installation; its output is in ``<home>/<name>.log``."""
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )

    def start_dagster(self) -> None:
        """``dagster dev``, as anyone runs it."""
        self.start(
            "dagster", "dagster", "dev", "-m", "ml_control.definitions",
            "--host", "127.0.0.1", "--port", str(self.ui),
        )  # fmt: skip

    def start_gateway(self) -> None:
        """The gateway, beside it."""
        self.start("gateway", "ml_control.gateway", "--port", self.gateway.rpartition(":")[2])

    def kill(self, name: str) -> None:
        """End a process and what it started, as a crash does."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        """End everything that was started."""
        for process in self.processes.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGINT)
        for process in self.processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the installation."""
        return subprocess.run(
            [sys.executable, "-m", "ml_control", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
            timeout=180,
        )

    def status(self) -> dict[str, Any]:
        """The pipeline's status, as the gateway tells it; nothing while there is no gateway."""
        try:
            reply = httpx.get(f"{self.gateway}/pipelines/{PIPELINE}", timeout=60)
        except httpx.TransportError:
            return {"live": None, "rollout": {"challenger": None, "state": "idle"}}
        assert 200 == reply.status_code, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def await_(self, ask: Any, what: str, seconds: float = 180.0) -> Any:
        """The first true answer; fails with the state and the logs' ends when there is none."""
        deadline = time.monotonic() + seconds
        while not (found := ask()):
            if time.monotonic() > deadline:
                logs = [f"{p}:\n{p.read_text()[-3000:]}" for p in self.home.glob("*.log")]
                pytest.fail(f"{what}: not within {seconds} s\n{self.status()}\n{logs}")
            time.sleep(1.0)
        return found

    def live(self) -> dict[str, Any] | None:
        """The live variant, if it is in service."""
        found = self.status()["live"]
        return found if found and found["state"] == "InService" else None

    def challenger(self) -> str | None:
        """The challenger's model version, once it takes traffic."""
        found = self.status()
        rollout = found["rollout"]
        variant = rollout["challenger"]
        if rollout["state"] != "in_progress" or not rollout["weights"].get(variant or ""):
            return None
        version: str = found["variants"][variant]["model_version"]
        return version

    def ask(self, records: list[dict[str, Any]], entity: str) -> dict[str, Any]:
        """An answer of the gateway."""
        body = {"records": records, "entity_id": entity}
        reply = httpx.post(f"{self.gateway}/inference/{PIPELINE}", json=body, timeout=60)
        assert 200 == reply.status_code, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def tell(self, request_id: str, outcomes: list[Any]) -> None:
        """Outcomes of a request."""
        body = {"request_id": request_id, "outcomes": outcomes}
        reply = httpx.post(f"{self.gateway}/outcomes/{PIPELINE}", json=body, timeout=60)
        assert 200 == reply.status_code, reply.text
