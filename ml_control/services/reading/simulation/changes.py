"""Settings as they are to be tried: ``retrain.min_new_rows=5000``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ml_control.core.pipeline import Pipeline
from ml_control.errors import InvalidSpec
from ml_control.spec import PipelineSpec

# What the replay obeys. Everything else decides on things that were not recorded.
REPLAYED = (
    "retrain.",
    "training.window.",
    "rollout.alpha",
    "rollout.min_samples",
    "rollout.max_duration",
    "rollout.metric.",
    "rollout.guardrails.",
)


def changed(pipeline: Pipeline, assignments: Sequence[str]) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline under changed settings, and each change as {path: value}.

    Raises ``InvalidSpec`` naming the setting for one that is unknown, that is not replayed, or
    whose value the pipeline file would refuse.
    """
    told = pipeline.spec.model_dump(mode="json", by_alias=True)
    made: dict[str, Any] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        path = path.strip()
        if not equals or not path:
            raise InvalidSpec(f"--set {text}", "is no setting", "write retrain.cooldown='1 h'")
        if not path.startswith(REPLAYED):
            raise InvalidSpec(
                f"--set {path}",
                "changes nothing that is replayed",
                f"it may begin with {', '.join(REPLAYED)}",
            )
        try:
            made[path] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidSpec(f"--set {text}", "its value is no YAML", "quote it") from error
        _put(told, path, made[path], text)
    try:
        spec = PipelineSpec.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(
            f"--set {field}",
            f"{first['msg']} (got {first.get('input')!r})",
            "see 'ml-control schema'",
        ) from error
    return replace(pipeline, spec=spec), made


def _put(told: dict[str, Any], path: str, value: Any, text: str) -> None:
    *sections, last = path.split(".")
    model: type[BaseModel] | None = PipelineSpec
    for name in [*sections, last]:
        field = model.model_fields.get(name) if model else None
        if field is None:
            raise InvalidSpec(
                f"--set {text}", f"there is no setting {path}", "see 'ml-control schema'"
            )
        kind = field.annotation
        model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    below = told
    for name in sections:
        below = below[name]
    below[last] = value
