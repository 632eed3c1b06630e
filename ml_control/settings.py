"""Where this installation keeps things: from the environment or ``ml-control.toml``."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from ml_control.errors import InvalidSpec

HOME_VARIABLE = "ML_CONTROL_HOME"
PIPELINES_VARIABLE = "ML_CONTROL_PIPELINES"
SETTINGS_FILE = "ml-control.toml"
_LISTS = ("yaml_env", "cors_origins")


class Settings(BaseModel):
    """What differs between installations; everything has a working default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: Literal["local"] = Field("local", description="Which adapters are used.")
    home: Path = Field(Path(".ml_control"), description="Folder of all local state.")
    pipelines: Path = Field(Path("pipelines"), description="Folder of pipeline folders.")
    lease_seconds: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="A holder that has not renewed its lease for so long lost it.",
    )
    max_attempts: int = Field(
        4, ge=1, le=100, description="Runs tried for a partition before its events are parked."
    )
    retry_seconds: float = Field(
        5.0, ge=0, le=3600, description="Wait before the second attempt; doubles with each one."
    )
    sweep_seconds: float = Field(
        300.0,
        ge=1,
        le=604800,
        description="Between two looks through the lake for objects whose notice never came.",
    )
    sweep_objects: int = Field(
        500, ge=1, le=100_000, description="Objects that one tick looks at during such a look."
    )
    alert_webhook: SecretStr = Field(
        SecretStr(""), description="Address that alerts are sent to by POST, as JSON."
    )
    gateway_port: int = Field(
        8080, ge=0, le=65535, description="Port of the gateway under 'up'; 0: any free one."
    )
    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_timeout: float = Field(
        5.0,
        gt=0,
        le=60,
        description="An endpoint that has not answered the gateway for so many seconds failed.",
    )
    gateway_keys: bool = Field(
        False, description="Reading and inference need a caller's key, not management alone."
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins of pages that may call the gateway; none by default."
    )
    rate_limit: float = Field(
        0.0, ge=0, description="Requests a second of one caller, in bursts of ten seconds; 0: any."
    )
    log_days: float = Field(
        15.0, gt=0, le=3650, description="So long outcomes are joined to their predictions."
    )
    max_runs: int = Field(
        4, ge=1, le=1000, description="Ingest runs of one pipeline under way at once."
    )
    yaml_env: tuple[str, ...] = Field(
        (), description="Environment variables that pipeline files may name in templates."
    )

    @field_validator("alert_webhook")
    @classmethod
    def _an_address(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not text.startswith(("https://", "http://")):
            raise ValueError("must begin with https:// or http://")
        return value

    @property
    def landing(self) -> Path:
        """Where people drop files: one folder per pipeline."""
        return self.home / "landing"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of this installation."""
        return self.home / "dagster"


def load_settings(home: Path | None = None, pipelines: Path | None = None) -> Settings:
    """Settings from, in order: arguments, environment variables, ``ml-control.toml``, defaults.

    Environment variables are ``ML_CONTROL_<FIELD>``. Raises ``InvalidSpec`` naming the field.
    """
    values: dict[str, Any] = {}
    file = Path(SETTINGS_FILE)
    if file.is_file():
        try:
            values.update(tomllib.loads(file.read_text("utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidSpec(SETTINGS_FILE, str(error), "correct the file's TOML") from error
    for name in Settings.model_fields:
        if text := os.environ.get(f"ML_CONTROL_{name.upper()}"):
            values[name] = text.split(",") if name in _LISTS else text
    values |= {k: v for k, v in {"home": home, "pipelines": pipelines}.items() if v is not None}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(
            f"setting {field}",
            f"{first['msg']}{_shown(field, first.get('input'))}",
            f"change {field} in {SETTINGS_FILE} or ML_CONTROL_{field.upper()}",
        ) from error
    return settings.model_copy(
        update={"home": settings.home.absolute(), "pipelines": settings.pipelines.absolute()}
    )


def _shown(field: str, value: Any) -> str:
    """What was given, unless it may hold a token."""
    return "" if field == "alert_webhook" else f" (got {value!r})"
