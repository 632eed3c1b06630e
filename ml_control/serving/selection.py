"""Selectable inference: what ``SAGEMAKER_INFERENCE_OUTPUT`` makes of a prediction.

The keys, which objective has which, and how each is derived are the container's. A key that the
objective does not have is answered with NaN, as there; an objective that has none is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ml_control.serving.recordio import encode_recordio
from ml_control.serving.refused import Refused

VARIABLE = "SAGEMAKER_INFERENCE_OUTPUT"
_LABELS = ("predicted_label", "labels")
_SCORES = ("raw_score", "raw_scores")
_PROBABILITIES = ("probability", "probabilities")
KEYS: dict[str, tuple[str, ...]] = {
    "reg:squarederror": ("predicted_score",),
    "reg:logistic": ("predicted_score",),
    "reg:gamma": ("predicted_score",),
    "reg:tweedie": ("predicted_score",),
    "binary:logistic": (*_LABELS, *_PROBABILITIES, *_SCORES),
    "binary:logitraw": (*_LABELS, *_SCORES),
    "binary:hinge": (*_LABELS, *_SCORES),
    "multi:softmax": (*_LABELS, *_SCORES),
    "multi:softprob": (*_LABELS, *_PROBABILITIES, *_SCORES),
}
_NAN = float("nan")


def selected_keys(setting: str) -> tuple[str, ...]:
    """The keys in a setting such as ``predicted_label, probabilities``, in its order."""
    return tuple(dict.fromkeys(setting.replace(" ", "").lower().split(",")))


def select(
    predictions: Sequence[Any], keys: Sequence[str], objective: str, num_class: int
) -> list[dict[str, Any]]:
    """The selected content of each prediction, a number or a list of numbers for each key.

    ``predictions`` are numbers, or lists of them for ``multi:softprob``. Raises ``Refused`` (500)
    for an objective that selectable inference does not know.
    """
    if objective not in KEYS:
        raise Refused(
            500,
            f"{VARIABLE} does not know the objective {objective!r}; "
            f"serve the model without it, or train with one of {', '.join(KEYS)}",
        )
    labels = list(range(num_class if objective.startswith("multi:") else 2))
    allowed = KEYS[objective]
    return [
        {key: _content(key, score, objective, labels) if key in allowed else _NAN for key in keys}
        for score in predictions
    ]


def _content(key: str, score: Any, objective: str, labels: list[int]) -> Any:
    if key == "labels":
        return labels
    if key == "predicted_label":
        return _label(score, objective)
    if key in {"probabilities", "raw_scores"}:
        return score if isinstance(score, list) else [1.0 - score, score]
    return max(score) if isinstance(score, list) else score


def _label(score: Any, objective: str) -> int | float:
    """The predicted class: for softmax and hinge what the model answers, a float, as it is."""
    if isinstance(score, list):
        return score.index(max(score))
    if objective in {"binary:hinge", "multi:softmax"}:
        return float(score)
    return int(score > (0.5 if objective == "binary:logistic" else 0.0))


def as_csv(selected: list[dict[str, Any]]) -> bytes:
    """One row a line; a list is one quoted cell: ``1,"[0.4, 0.6]"``."""
    lines = (
        ",".join(f'"{v}"' if isinstance(v, list) else str(v) for v in row.values())
        for row in selected
    )
    return "\n".join(lines).encode() + b"\n"


def as_json(selected: list[dict[str, Any]]) -> bytes:
    """``{"predictions": [...]}``; NaN is written as such, as the container writes it."""
    return json.dumps({"predictions": selected}, separators=(",", ":")).encode()


def as_jsonlines(selected: list[dict[str, Any]]) -> bytes:
    """One object a line."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in selected)


def as_recordio(selected: list[dict[str, Any]]) -> bytes:
    """One record a row, with a float32 tensor for each key among its labels."""
    return encode_recordio(
        {key: v if isinstance(v, list) else [v] for key, v in row.items()} for row in selected
    )
