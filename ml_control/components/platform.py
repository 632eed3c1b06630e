"""The platform's resources and executor, once in a project."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from ml_control.resources import RESOURCE_KEY, PlatformResource


class PlatformAttributes(BaseModel):
    """Where the platform keeps its state."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: str = Field(
        "",
        description="Folder of all local state; empty: ML_CONTROL_HOME, else ml-control.toml, "
        "else ./.ml_control.",
    )


class Platform(dg.Component):
    """Gives every pipeline of a project its lake, registry, trainer and endpoints."""

    def __init__(self, home: str = "") -> None:
        self.home = home

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The component's attributes."""
        return PlatformAttributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Platform:
        """The component; a relative home is relative to the file that names it."""
        home = attributes.home if isinstance(attributes, PlatformAttributes) else ""
        if home and not Path(home).is_absolute():
            home = str((Path(context.path) / home).resolve())
        return cls(home)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """The resource that the assets ask for."""
        return platform_defs(self.home)


def platform_defs(home: str = "") -> dg.Definitions:
    """The platform's resource, and the in-process executor: a step costs no process of its own."""
    return dg.Definitions(
        resources={RESOURCE_KEY: PlatformResource(home=home)}, executor=dg.in_process_executor
    )
