"""A pipeline as it is run: its file, its expectations, and the names of its configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ml_control.core.digests import digest_of
from ml_control.spec import PipelineSpec


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file with what it refers to. ``folder`` is where it was read from."""

    spec: PipelineSpec
    suite: Mapping[str, Any] | None = None
    folder: Path | None = None

    @property
    def name(self) -> str:
        """The pipeline's name: first part of every asset key and lake key."""
        return self.spec.name

    @cached_property
    def transform_digest(self) -> str:
        """Names everything that decides what processed files look like."""
        source = self.spec.source.model_dump(mode="json", include={"format", "missing", "image"})
        columns = self.spec.columns.model_dump(mode="json")
        split = self.spec.training.split.model_dump(mode="json")
        return digest_of([source, columns, split])
