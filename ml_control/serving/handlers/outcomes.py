"""``POST /outcomes/{pipeline}``: what really happened, joined to its prediction.

Telling the same again changes nothing, telling it before the prediction is logged is allowed,
telling something else for the same record is a ``Conflict``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from ml_control.core.cells import quote
from ml_control.errors import BadObject
from ml_control.ports import Outcome
from ml_control.serving.handlers.bodies import Outcomes, decode
from ml_control.serving.handlers.desk import Desk
from ml_control.serving.handlers.messages import Answer, Request
from ml_control.serving.handlers.steps import Do, Look, Snapshot, Steps

_LONGEST = 1024  # characters of a label


def tell(request: Request, desk: Desk, *, pipeline: str) -> Steps:
    """Note a request's outcomes. Raises ``BadObject`` for one of the wrong type or beyond the
    request's records, ``Conflict`` for another value than was told before; then none is noted.
    """
    body = decode(Outcomes, request.body)
    snapshot: Snapshot = yield Look(pipeline)
    now = desk.clock()
    outcomes = [
        Outcome(index, require(value, snapshot.task, index), now)
        for index, value in enumerate(body.outcomes)
        if value is not None
    ]
    states: list[str] = []
    if outcomes:
        states = yield Do(lambda: desk.log.tell(pipeline, body.request_id, outcomes))
    counts = Counter(states)
    told = {state: counts[state] for state in ("joined", "waiting", "known")}
    return Answer(200, orjson.dumps({"request_id": body.request_id, **told}))


def require(value: Any, task: str, index: int) -> Any:
    """The outcome, if it is one for this task: a label, for regression a number, or metrics."""
    if isinstance(value, dict):
        usable = 0 < len(value) <= 64 and all(0 < len(name) <= 64 for name in value)
    elif task == "regression":
        usable = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        usable = isinstance(value, str) and len(value) <= _LONGEST
    numbers = value.values() if isinstance(value, dict) else [value]
    small = all(isinstance(n, str) or abs(n) <= 1e300 for n in numbers)
    if not (usable and small):
        wanted = "a number" if task == "regression" else "a label, as text"
        raise BadObject(
            f"outcome {index + 1}",
            f"{quote(value)} is not {wanted}, nor numbers by metric",
            "send each record's true value, or null while it is not known",
            row=index + 1,
        )
    return value
