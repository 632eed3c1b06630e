"""What every part of the pipeline file is made of: durations with units, strict sections."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}\Z")
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)\s*$")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> float:
    """Seconds from ``"500 ms"``, ``"2 s"``, ``"15 min"``, ``"1 h"`` or ``"7 d"``.

    A bare number is refused: a duration without its unit is how minutes become seconds.
    """
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return float(match[1]) * _UNITS[match[2]]
    raise ValueError(f"{value!r} is not a duration; write a number and ms, s, min, h or d ('2 s')")


def print_duration(seconds: float) -> str:
    """The text that :func:`parse_duration` reads back as exactly these seconds."""
    return f"{Decimal(repr(seconds)):f} s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(print_duration, when_used="json"),
]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of the pipeline file: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
