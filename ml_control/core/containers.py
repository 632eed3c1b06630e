"""The SageMaker XGBoost containers that a pipeline may name, and the exact XGBoost in each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from ml_control.errors import InvalidSpec


@dataclass(frozen=True)
class Container:
    """One container version. ``end_of_patch`` is the last day AWS patches it, where known."""

    tag: str
    xgboost: str
    python: str
    end_of_patch: date | None

    @property
    def version(self) -> tuple[int, int, int]:
        """The XGBoost version as numbers, for comparison."""
        major, minor, patch = (int(part) for part in self.xgboost.split("."))
        return major, minor, patch


CONTAINERS: dict[str, Container] = {
    item.tag: item
    for item in (
        Container("1.5-1", "1.5.2", "3.8", None),
        Container("1.7-1", "1.7.4", "3.9", None),
        Container("3.0-5", "3.0.5", "3.10", date(2026, 11, 17)),
        Container("3.2-0", "3.2.0", "3.12", date(2027, 5, 13)),
    )
}


def container(tag: str) -> Container:
    """The container of this tag. Raises ``InvalidSpec`` listing the tags that exist."""
    try:
        return CONTAINERS[tag]
    except KeyError:
        raise InvalidSpec(
            f"container {tag!r}",
            "is not an XGBoost container that ml-control can prove a model for",
            f"use one of {', '.join(CONTAINERS)}",
        ) from None
