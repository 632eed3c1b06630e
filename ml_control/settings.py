"""Where this installation keeps things: from the environment or ``ml-control.toml``."""

from __future__ import annotations

import json
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


class AwsSettings(BaseModel):
    """Where the AWS platform keeps things. Credentials come from the standard chain alone.

    What is not named is ``<project>-<part>-<environment>``, as the stacks name it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: str = Field(
        "", pattern=r"^([a-z]{2}(-[a-z]+)+-\d)?$", description="AWS region; the chain's if unset."
    )
    profile: str = Field("", description="Profile of the shared credentials file; the usual one.")
    project: str = Field(
        "ml-control", pattern=r"^[a-z][a-z0-9-]{0,19}$", description="First part of every name."
    )
    environment: str = Field(
        "dev", pattern=r"^[a-z][a-z0-9-]{0,9}$", description="Last part of every name."
    )
    buckets: dict[str, str] = Field(
        default_factory=dict,
        description="Bucket of each lake area: raw, processed, artifacts, logs.",
    )
    tables: dict[str, str] = Field(
        default_factory=dict, description="DynamoDB table of each registry table."
    )
    queue_url: str = Field("", description="SQS queue that arrivals come through.")
    dead_letter_url: str = Field("", description="SQS queue of what could not be taken in.")
    stream: str = Field("", description="Kinesis stream of records to predict.")
    topic_arn: str = Field("", description="SNS topic that alerts go to; none: to the log only.")
    role_arn: str = Field("", description="Role that SageMaker assumes for jobs and endpoints.")
    kms_key: str = Field("", description="KMS key of what is written; the buckets' own if unset.")
    subnets: tuple[str, ...] = Field((), description="Subnets of training jobs; none: no VPC.")
    security_groups: tuple[str, ...] = Field((), description="Security groups of training jobs.")
    tags: dict[str, str] = Field(
        default_factory=dict, description="Tags of everything made, beside project and environment."
    )
    metrics_namespace: str = Field("MlControl", description="CloudWatch namespace of metrics.")
    endpoint_urls: dict[str, str] = Field(
        default_factory=dict,
        description="Other addresses by service (s3, sqs, dynamodb, ...); AWS_ENDPOINT_URL and "
        "AWS_ENDPOINT_URL_<SERVICE> are heeded as well.",
    )
    connect_timeout: float = Field(5.0, gt=0, le=60, description="Seconds to reach a service.")
    read_timeout: float = Field(20.0, gt=0, le=300, description="Seconds to wait for an answer.")
    max_attempts: int = Field(
        6, ge=1, le=20, description="Tries of one request before it is Retryable."
    )

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def name(self, part: str) -> str:
        """What a part is called when it is not named: ``<project>-<part>-<environment>``."""
        return f"{self.project}-{part}-{self.environment}"

    def bucket(self, area: str) -> str:
        """The bucket of a lake area."""
        return self.buckets.get(area) or self.name(area)

    def table(self, table: str) -> str:
        """The DynamoDB table of a registry table."""
        return self.tables.get(table) or self.name(table)

    @property
    def stream_name(self) -> str:
        """The Kinesis stream."""
        return self.stream or self.name("stream")

    @property
    def all_tags(self) -> dict[str, str]:
        """The tags of everything that is made."""
        return {"project": self.project, "environment": self.environment, **self.tags}


class Settings(BaseModel):
    """What differs between installations; everything has a working default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: Literal["local", "aws"] = Field("local", description="Which adapters are used.")
    aws: AwsSettings = Field(
        default_factory=AwsSettings, description="Where things are, on platform aws."
    )
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

    def door(self, pipeline: str) -> str:
        """Where a pipeline's objects are put: a folder, or an address in the raw bucket."""
        if self.platform == "aws":
            return f"s3://{self.aws.bucket('raw')}/{pipeline}"
        return str(self.landing / pipeline)

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
        if name != "aws" and (text := os.environ.get(f"ML_CONTROL_{name.upper()}")):
            values[name] = text.split(",") if name in _LISTS else text
    _aws_from_environment(values)
    values |= {k: v for k, v in {"home": home, "pipelines": pipelines}.items() if v is not None}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(
            f"setting {field}",
            f"{first['msg']}{_shown(field, first.get('input'))}",
            f"change {field} in {SETTINGS_FILE} or ML_CONTROL_{field.upper().replace('.', '_')}",
        ) from error
    return settings.model_copy(
        update={"home": settings.home.absolute(), "pipelines": settings.pipelines.absolute()}
    )


def _aws_from_environment(values: dict[str, Any]) -> None:
    """``ML_CONTROL_AWS_<FIELD>``: text as it is, lists by commas, tables as JSON."""
    given: dict[str, Any] = {}
    for name, field in AwsSettings.model_fields.items():
        variable = f"ML_CONTROL_AWS_{name.upper()}"
        if not (text := os.environ.get(variable)):
            continue
        given[name] = text
        if field.annotation == tuple[str, ...]:
            given[name] = text.split(",")
        elif field.annotation == dict[str, str]:
            try:
                given[name] = json.loads(text)
            except ValueError as error:
                raise InvalidSpec(
                    f"setting aws.{name}", f"is no JSON: {error}", f"correct {variable}"
                ) from error
    if given:
        table = values.get("aws", {})
        values["aws"] = {**table, **given} if isinstance(table, dict) else table


def _shown(field: str, value: Any) -> str:
    """What was given, unless it may hold a token."""
    return "" if field == "alert_webhook" else f" (got {value!r})"
