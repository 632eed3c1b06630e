"""What a command works on: settings, pipelines and platform, each opened when first needed."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ml_control.settings import HOME_VARIABLE, PIPELINES_VARIABLE, Settings, load_settings

if TYPE_CHECKING:
    import dagster as dg

    from ml_control.core.pipeline import Pipeline
    from ml_control.platform import Platform
    from ml_control.services.authoring.pipelines import PipelineFolder


class App:
    """The state of one command."""

    def __init__(self, home: Path | None, pipelines: Path | None) -> None:
        self._home = home
        self._pipelines = pipelines

    @cached_property
    def settings(self) -> Settings:
        """The settings; also put into the environment, for the processes that are started."""
        settings = load_settings(self._home, self._pipelines)
        os.environ[HOME_VARIABLE] = str(settings.home)
        os.environ[PIPELINES_VARIABLE] = str(settings.pipelines)
        return settings

    @cached_property
    def platform(self) -> Platform:
        """The platform of these settings."""
        from ml_control.platform import open_platform

        return open_platform(self.settings)

    @cached_property
    def folder(self) -> PipelineFolder:
        """All pipelines, usable and broken."""
        from ml_control.services.authoring.pipelines import read_folder

        return read_folder(self.settings.pipelines, self.settings.yaml_env)

    def pipeline(self, name: str) -> Pipeline:
        """One pipeline. Raises ``InvalidSpec``."""
        return self.folder.get(name)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The Dagster definitions of these pipelines."""
        _ = self.settings
        from ml_control.definitions import load_definitions

        return load_definitions()
