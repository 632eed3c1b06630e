"""A pipeline driven from arrivals to a routed model by what assets and sensors call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.errors import Conflict, Retryable
from ml_control.platform import Platform
from ml_control.registry import Registry
from ml_control.services.arrivals import intake, requests
from ml_control.services.data import dataset
from ml_control.services.models import training
from ml_control.services.releases import deployment

TRIES = 200
Step = Callable[[Platform, Pipeline, str], Any]


def quiet(_: object) -> None:
    """Progress is of no interest here."""


def ingest(platform: Platform, pipeline: Pipeline, run: str) -> None:
    """Publish every partition that has something to do."""
    for partition in sorted(requests.partitions_with_work(platform, pipeline)):
        dataset.admit(platform, pipeline, partition, run)
        dataset.process(platform, pipeline, partition, run)


STEPS: Mapping[str, Step] = {  # what the sensors start, one after the other
    "take in": lambda platform, pipeline, run: intake.take_in(platform, pipeline, settle=0.0),
    "ingest": ingest,
    "train": lambda *of: training.train(*of, quiet),
    "deploy": lambda *of: deployment.deploy(*of, quiet),
    "route": lambda *of: deployment.route(*of, quiet),
}


def drive(
    platform: Platform, pipeline: Pipeline, steps: Mapping[str, Step] = STEPS
) -> Counter[tuple[str, str]]:
    """Each step again until it comes to its end; the refusals on the way, by step and kind."""
    refusals: Counter[tuple[str, str]] = Counter()
    for name, step in steps.items():
        for number in range(TRIES):
            try:
                step(platform, pipeline, f"{name} {number}")
                break
            except (Retryable, Conflict) as error:
                refusals[name, error.kind] += 1
                if isinstance(error, Conflict):  # a lease that could not be given back runs out
                    time.sleep(0.1)
        else:
            raise AssertionError(f"not done in {TRIES} tries: {refusals}")
    return refusals


def outcome(registry: Registry, name: str) -> dict[str, Any]:
    """What the registry says at the end, without times, runs and numbers of tries."""
    rollout = registry.rollouts.get(name)
    return {
        "partitions": [
            (state.partition, state.raw and state.raw.digest,
             state.processed and state.processed.digest)
            for state in registry.partitions.all(name)
        ],
        "models": [model.version for model in registry.models.all(name)],
        "events": sorted((e.key, e.version, e.state) for e in registry.ledger.events(name)),
        "passed": {v.model_version for v in registry.models.verdicts(name) if v.passed},
        "live": (rollout.live, rollout.champion, rollout.state),
        "weights": dict(rollout.weights),
    }  # fmt: skip
