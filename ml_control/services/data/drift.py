"""What a partition's drift is measured against: the data of the newest model."""

from __future__ import annotations

import json
from typing import Any

from ml_control.core.digests import canonical
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Dataset, ModelVersion
from ml_control.errors import MlControlError, Retryable
from ml_control.platform import Platform
from ml_control.services.data.dataset import load_processed


def drift_reference(platform: Platform, pipeline: Pipeline) -> dict[str, Any] | None:
    """The merged profile of the newest model's training data, with ``model`` and ``dataset``.

    The newest is the last one that training registered, else the one that serves. None when
    there is no model yet. When its profile cannot be had, ``unavailable`` says why: whether that
    refuses a partition is for the check to decide.
    """
    model = _newest(platform, pipeline.name)
    if model is None:
        return None
    try:
        found = profile_of(platform, model.dataset)
    except MlControlError as error:
        found = {"unavailable": f"{error.object}: {error.reason}"}
    except ValueError as error:  # a manifest that is no such JSON
        found = {"unavailable": " ".join(str(error).split())[:200]}
    return {**found, "model": model.version, "dataset": model.dataset.digest}


def _newest(platform: Platform, pipeline: str) -> ModelVersion | None:
    registry = platform.registry
    if (candidate := registry.models.candidate(pipeline)) is not None:
        return candidate
    rollout = registry.rollouts.get(pipeline)
    return registry.models.get(pipeline, rollout.champion) if rollout.champion else None


def profile_of(platform: Platform, dataset: Dataset) -> dict[str, Any]:
    """The profile of all parts as one, kept in the lake: a partition need not read 90 manifests.

    What is kept is named by the dataset's digest and derived from it; it may be deleted.
    """
    from ml_control.core.profile import merge

    path = f"artifacts/{dataset.pipeline}/profiles/{dataset.digest}.json"
    try:
        kept = json.loads(platform.lake.get(path))
        if isinstance(kept, dict) and {"rows", "features", "target"} <= set(kept):
            return kept
    except (Retryable, ValueError):
        pass  # not made yet, or damaged: made again
    merged = merge(
        [load_processed(platform, part.path, part.digest).profile for part in dataset.parts]
    )
    platform.lake.put(path, canonical(merged))
    return merged
