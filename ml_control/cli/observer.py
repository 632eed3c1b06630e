"""What the demo sees: only HTTP, Dagster's GraphQL and the command line, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from ml_control.settings import HOME_VARIABLE, PIPELINES_VARIABLE

LOCATION = "ml_control"
REPOSITORY = "__repository__"
T = TypeVar("T")

_RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter, limit: 200) {
    ... on Runs { results { runId status tags { key value } } }
  }
}"""
_FAILURE = """
query Failure($id: ID!) {
  runOrError(runId: $id) {
    ... on Run {
      status
      eventConnection {
        events { ... on ExecutionStepFailureEvent { error { message causes: errorChain {
          error { message } } } } }
      }
    }
  }
}"""
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_TICK = """
query Tick($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor { sensorState { ticks(limit: 1) { timestamp status skipReason } } }
  }
}"""

_RELOAD = """
mutation Reload($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) {
    __typename
    ... on WorkspaceLocationEntry { loadStatus }
  }
}"""


class DemoFailed(Exception):
    """An act did not come true."""


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


class Observer:
    """A user of one home: runs commands, asks the UI's GraphQL, calls endpoints."""

    def __init__(self, home: Path, pipelines: Path) -> None:
        self.home = home
        self.pipelines = pipelines
        self.ui = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of everything that the demo starts."""
        return {
            **os.environ,
            HOME_VARIABLE: str(self.home),
            PIPELINES_VARIABLE: str(self.pipelines),
        }

    def command(self, *arguments: str, timeout: float = 120.0) -> Answer:
        """Run ``ml-control`` with these arguments."""
        done = subprocess.run(
            [sys.executable, "-m", "ml_control", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def status(self, pipeline: str) -> dict[str, Any]:
        """``status --json`` of one pipeline."""
        answer = self.command("status", pipeline, "--json")
        expect(answer.status == 0, f"status failed: {answer.err}")
        found: dict[str, Any] = answer.json()["pipelines"][0]
        return found

    def events(self, pipeline: str, *arguments: str) -> list[dict[str, Any]]:
        """``events --json``, all of them."""
        answer = self.command("events", pipeline, "--json", "--limit", "0", *arguments)
        expect(answer.status == 0, f"events failed: {answer.err}")
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    def graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """One GraphQL request to the Dagster UI's server."""
        reply = httpx.post(
            f"{self.ui}/graphql", json={"query": query, "variables": dict(variables)}, timeout=30
        )
        body = reply.json()
        expect("data" in body and body["data"], f"GraphQL refused: {body}")
        data: dict[str, Any] = body["data"]
        return data

    @property
    def gateway(self) -> str:
        """Address of the gateway that ``up`` runs."""
        return str(json.loads((self.home / "up.json").read_text("utf-8"))["gateway"])

    def reload(self) -> None:
        """Read the pipeline files again, as the button in the UI does."""
        found = self.graphql(_RELOAD, {"location": LOCATION})["reloadRepositoryLocation"]
        expect(found["__typename"] == "WorkspaceLocationEntry", f"not reloaded: {found}")

    def runs(self, job: str, *statuses: str) -> list[dict[str, Any]]:
        """Runs of a job as Dagster shows them."""
        wanted: dict[str, Any] = {"pipelineName": job}
        if statuses:
            wanted["statuses"] = list(statuses)
        found: list[dict[str, Any]] = self.graphql(_RUNS, {"filter": wanted})["runsOrError"][
            "results"
        ]
        return found

    def launch(self, job: str, assets: Sequence[Sequence[str]]) -> str:
        """Materialise some assets of a job, as the button in the UI does; gives the run id."""
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": REPOSITORY,
            "jobName": job,
            "assetSelection": [{"path": list(path)} for path in assets],
            "assetCheckSelection": [],
        }
        params = {"selector": selector, "mode": "default", "runConfigData": {}}
        found = self.graphql(_LAUNCH, {"params": params})["launchPipelineExecution"]
        expect(found["__typename"] == "LaunchRunSuccess", f"could not launch: {found}")
        run: str = found["run"]["runId"]
        return run

    def failure(self, run: str) -> str:
        """How a failed run failed, in all the words that Dagster keeps."""
        found = self.graphql(_FAILURE, {"id": run})["runOrError"]
        words = []
        for event in found["eventConnection"]["events"]:
            if error := event.get("error"):
                words += [error["message"], *(c["error"]["message"] for c in error["causes"])]
        return "\n".join(words)

    def run_status(self, run: str) -> str:
        """A run's status."""
        status: str = self.graphql(_FAILURE, {"id": run})["runOrError"]["status"]
        return status

    def last_tick(self, sensor: str) -> dict[str, Any]:
        """A sensor's last tick: when, and why it asked for nothing."""
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": REPOSITORY,
            "sensorName": sensor,
        }
        state = self.graphql(_TICK, {"selector": selector})["sensorOrError"]["sensorState"]
        return dict(state["ticks"][0]) if state["ticks"] else {"timestamp": 0.0}


def expect(true: object, otherwise: str) -> None:
    """Raise ``DemoFailed`` unless something holds."""
    if not true:
        raise DemoFailed(otherwise)


def until(ask: Callable[[], T | None], what: str, seconds: float = 120.0, every: float = 1.0) -> T:
    """Ask again and again until there is an answer. Raises ``DemoFailed`` when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = ask()
        if found:
            return found
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
