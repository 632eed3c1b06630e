"""Requests and outcomes for suites of the prediction log."""

from __future__ import annotations

from ml_control.ports import Outcome, Prediction

P, R = "flowers", "rollout-1"
NOON = 1_700_000_000.0 // 3600 * 3600
ANSWERS = b'[{"label":"rose","score":0.9},{"label":"lily","score":0.2}]'


def request(id, entity="e", *, pipeline=P, challenger=False, share=0.5, **fields):
    """An answered request of two records."""
    values = {
        "pipeline": pipeline,
        "request_id": id,
        "entity_id": entity,
        "rollout_id": R,
        "assigned": "b" if challenger else "a",
        "challenger": challenger,
        "share": share,
        "served": "b" if challenger else "a",
        "model_version": "m2" if challenger else "m1",
        "at": NOON,
        "latency": 0.002,
        "rows": 2,
        "records": b'[{"x":1},{"x":2}]',
        "answers": ANSWERS,
    }
    return Prediction(**{**values, **fields})


def told(value="rose", index=0, at=NOON + 60):
    return Outcome(index, value, at)


def all_joined(log, pipeline=P):
    return log.joined(pipeline, 0, 100_000)


def ids(log, pipeline=P):
    """Ids of all requests in the log, in order."""
    return [one.prediction.request_id for one in log.after(pipeline, 0, 100_000)]
