"""The platform as a Dagster resource."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import Field

from ml_control.platform import Platform, open_platform
from ml_control.settings import load_settings

RESOURCE_KEY = "ml_control"


class PlatformResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where pipelines keep their lake, registry, jobs and endpoints."""

    home: str = Field(
        "",
        description="Folder of all local state; empty: ML_CONTROL_HOME, else ml-control.toml, "
        "else ./.ml_control.",
    )

    def open(self) -> Platform:
        """The platform; opened once a process."""
        return open_platform(load_settings(home=Path(self.home) if self.home else None))
