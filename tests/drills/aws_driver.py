"""A control plane of its own process, which drives everything that it finds until a model is live.

Run as ``python aws_driver.py SETTINGS PIPELINE WHO EVENTS``: SETTINGS is JSON, EVENTS how many
objects there will be. It says ``ready``, begins at a line of its input, and ends with a line of
JSON: what it was refused.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from aws_home import quick
from driving import STEPS, TRIES

from ml_control.errors import Conflict, NotProven, Retryable
from ml_control.platform import open_platform
from ml_control.services.arrivals.requests import partitions_with_work
from ml_control.services.authoring.pipelines import read_folder
from ml_control.settings import Settings


def rests(platform, pipeline, events):
    """Whether everything that was put is published."""
    counts = platform.registry.ledger.counts(pipeline.name)
    return counts.get("done", 0) == events and not partitions_with_work(platform, pipeline)


def done(platform, pipeline):
    """Whether the newest model takes the traffic."""
    candidate = platform.registry.models.candidate(pipeline.name)
    rollout = platform.registry.rollouts.get(pipeline.name)
    return candidate is not None and candidate.version == rollout.champion


def main(settings, name, who, events):
    """Each step as often as it needs; one that is refused is begun anew from the first."""
    settings = Settings.model_validate_json(settings)
    platform = quick(open_platform(settings))
    pipeline = read_folder(settings.pipelines).get(name)
    print("ready", flush=True)
    sys.stdin.readline()
    refused = []
    for number in range(TRIES):
        step = ""
        try:
            for step in STEPS:
                if step == "train" and not rests(platform, pipeline, int(events)):
                    break  # as the sensor waits for data that is coming in
                STEPS[step](platform, pipeline, f"{who} {step} {number}")
            if done(platform, pipeline):
                break
        except (Conflict, NotProven, Retryable) as error:
            refused.append({"step": step, **error.to_dict()})
        time.sleep(0.05)
    print(json.dumps(refused), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
