"""A pipeline's routing with the encodings of its models: what a request is answered by."""

from __future__ import annotations

from ml_control.core.features import FeatureSpec
from ml_control.core.pipeline import Pipeline
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.services.models.evidence import ARCHIVE
from ml_control.services.models.gatekeeper import require_once_proven
from ml_control.serving.handlers.steps import Served, Snapshot

_KEPT = 64  # encodings


class Snapshots:
    """Reads snapshots. The encoding of a model version is read and proven once, and kept."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._proven: dict[tuple[str, str], tuple[FeatureSpec, str]] = {}

    def read(self, pipeline: Pipeline) -> Snapshot:
        """The snapshot as of now. A variant whose model is not proven is there as unusable."""
        rollout = self._platform.registry.rollouts.get(pipeline.name)
        variants = {}
        for name, entry in rollout.variants.items():
            features, archive, unusable = None, "", ""
            try:
                features, archive = self._prove(pipeline, entry.model_version)
            except MlControlError as error:
                unusable = f"its model cannot be used: {error.reason}"
            variants[name] = Served(
                name, entry.endpoint, entry.model_version, archive, features, unusable
            )
        return Snapshot(
            pipeline.name, pipeline.spec.columns.task, pipeline.spec.log, rollout, variants
        )

    def _prove(self, pipeline: Pipeline, version: str) -> tuple[FeatureSpec, str]:
        key = (pipeline.name, version)
        if (found := self._proven.get(key)) is None:
            proven = require_once_proven(self._platform, pipeline, version)
            features = FeatureSpec.model_validate_json(proven.features)
            found = features, proven.model.files[ARCHIVE]
            while len(self._proven) >= _KEPT:
                self._proven.pop(next(iter(self._proven)))
            self._proven[key] = found
        return found
