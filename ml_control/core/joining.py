"""Whether an outcome fits the request that it was told for, decided alike by every log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson

from ml_control.errors import BadObject, Conflict

_UNANSWERED = "the request was not answered, so that there is nothing to compare"
_LONGEST = 60  # characters of a value in a message


def outcome_text(request_id: str, index: Any, value: Any) -> str:
    """An outcome's value as JSON. Raises ``BadObject`` for what is none, or no index."""
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 1 << 31:
        raise BadObject(request_id, f"{index!r} is no index of a record", "count records from 0")
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadObject(
            request_id, f"record {index}: the outcome is no JSON: {error}", "correct the outcome"
        ) from error


def require_same(object: str, index: int, earlier: str, text: str) -> None:
    """Raise ``Conflict`` unless both values are equal: also 1 and 1.0, but not 1 and true."""
    if earlier == text:
        return
    one, other = json.loads(earlier), json.loads(text)
    if not isinstance(one, bool) and not isinstance(other, bool) and one == other:
        return
    raise Conflict(
        object,
        f"record {index} has the outcome {_short(earlier)} already, not {_short(text)}",
        "the first one stands; a correction cannot be judged twice",
    )


def answers_of(answers: bytes, *, failed: bool) -> list[Any]:
    """The answers of a request, one for each record; none when it was not answered."""
    if failed and not answers:
        return []
    found = orjson.loads(answers or b"[]")
    return found if isinstance(found, list) else []


def unfit(index: int, answers: Sequence[Any]) -> str:
    """Why an outcome cannot belong to the request's records, if so."""
    if not answers:
        return _UNANSWERED
    if index >= len(answers):
        return f"there is no record {index}: the request had {len(answers)} records, from 0"
    return ""


def answer_of(answer: Any) -> tuple[str | None, float | None]:
    """Label and score of one answer."""
    if not isinstance(answer, dict):
        return None, None
    label, score = answer.get("label"), answer.get("score")
    return (
        None if label is None else str(label),
        float(score) if isinstance(score, int | float) else None,
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
