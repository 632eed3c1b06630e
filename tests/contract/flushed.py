"""A pipeline, its requests and a clock for suites of the flush into the lake."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ml_control.core.pipeline import Pipeline
from ml_control.ports import Prediction
from ml_control.services.traffic.log_files import read_predictions
from ml_control.spec import PipelineSpec

P = "flowers"
NOON = datetime(2036, 11, 22, 12, tzinfo=UTC).timestamp()  # never too old to be joined
COLUMNS = {
    "target": "kind",
    "task": "binary",
    "positive": "rose",
    "features": [
        {"name": "size", "type": "number", "min": 0},
        {"name": "colour", "type": "category"},
    ],
}


def pipeline(**columns):
    spec = {
        "name": P,
        "source": {"format": "csv", "partition": {"by": "day", "start": "2026-01-01"}},
        "columns": {**COLUMNS, **columns},
    }
    return Pipeline(PipelineSpec.model_validate(spec))


def request(id, at=NOON, records=({"size": 1.5, "colour": "red"},), **fields):
    """An answered request."""
    answers = [{"label": "rose", "score": 0.75}] * len(records)
    values = {
        "pipeline": P, "request_id": id, "entity_id": "e", "rollout_id": "r", "assigned": "a",
        "challenger": False, "share": 0.5, "served": "a", "model_version": "m1", "at": at,
        "latency": 0.01, "rows": len(records), "records": json.dumps(list(records)).encode(),
        "answers": json.dumps(answers).encode(),
    }  # fmt: skip
    return Prediction(**{**values, **fields})


class Clock:
    now = NOON + 60

    def __call__(self):
        return self.now


def ids(platform, *times):
    return read_predictions(platform, P, *times).sort("offset", "index").collect()[
        "request_id"
    ].to_list()  # fmt: skip
