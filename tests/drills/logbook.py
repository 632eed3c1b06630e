"""Requests and outcomes that drills put into the prediction log, and a note of what was told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ml_control.ports import Outcome, Prediction
from ml_control.services.traffic.flush import flush as flush_all

NOON = 1_900_000_000.0 // 3600 * 3600  # in the future: nothing is too old to be joined
COLUMN = "worst_radius"


def request(pipeline, number):
    """The request of this number: three hours, two arms, ten requests an entity."""
    challenger = number // 10 % 2 == 1
    return Prediction(
        pipeline=pipeline, request_id=f"r{number}", entity_id=f"e{number // 10}", rollout_id="r",
        assigned="ab"[challenger], challenger=challenger, share=0.5, served="ab"[challenger],
        model_version="m", at=NOON + 3600 * (number % 3), latency=0.001, rows=1,
        records=json.dumps([{COLUMN: number}]).encode(),
        answers=b'[{"label":"benign","score":0.25}]',
    )  # fmt: skip


def log(platform, pipeline, first, last, threads, told):
    """Log requests, one durable call each, from several threads; each is noted once told."""
    with Path(told).open("a", buffering=1) as notes, ThreadPoolExecutor(threads) as pool:

        def one(number):
            if platform.log.append([request(pipeline.name, number)])[0]:
                notes.write(f"{number}\n")
            return number

        return len(list(pool.map(one, range(first, last))))


def tell(platform, pipeline, first, last):
    """Tell the outcome of each request."""
    return [
        platform.log.tell(pipeline.name, f"r{number}", [Outcome(0, "benign", NOON)])[0]
        for number in range(first, last)
    ]


def flush(platform, pipeline):
    """Write all there is into the lake."""
    done = flush_all(platform, [pipeline], force=True)
    return [done.predictions, done.outcomes, done.files]
