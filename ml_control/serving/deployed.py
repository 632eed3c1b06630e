"""What ``deployment.json`` says is to be served, and the settings that it may carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_control.errors import InvalidSpec
from ml_control.serving.selection import VARIABLE, selected_keys

MAX_CONTENT_LENGTH = 6_291_456
_MOST_CONTENT = 20 << 20  # the container goes no higher, whatever is asked for
_LENGTH = "MAX_CONTENT_LENGTH"


@dataclass(frozen=True)
class Deployment:
    """One deployment. ``environment`` holds the container's variables that change its answers.

    They are read from here alone and never from the process's own environment, so that nothing
    set in a shell can change what a proven model answers.
    """

    name: str
    model_version: str
    container: str
    archive_sha256: str
    instance: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ``InvalidSpec`` for a variable that is not known, or a value it cannot have."""
        for name in set(self.environment) - {_LENGTH, VARIABLE}:
            raise InvalidSpec(
                f"{self.name}: environment {name!r}",
                "is not a variable that the server acts on",
                f"use {_LENGTH} or {VARIABLE}, or leave it out",
            )
        length = str(self.environment.get(_LENGTH, MAX_CONTENT_LENGTH))
        if not (length.isdecimal() and len(length) < 20 and int(length) > 0):
            raise InvalidSpec(
                f"{self.name}: environment {_LENGTH}",
                f"is {length!r}",
                "give a number of bytes of at least 1",
            )

    @property
    def max_content_length(self) -> int:
        """The largest body in bytes."""
        return min(int(self.environment.get(_LENGTH, MAX_CONTENT_LENGTH)), _MOST_CONTENT)

    @property
    def selected(self) -> tuple[str, ...]:
        """The keys of selectable inference; empty when only the score is answered."""
        setting = self.environment.get(VARIABLE)
        return selected_keys(setting) if setting else ()
