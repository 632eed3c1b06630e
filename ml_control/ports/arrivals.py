"""Where word of new objects comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Notice:
    """A source's word that an object version exists. ``handle`` is what acknowledging needs.

    ``fresh``: certainly a new put, so that putting an older content again makes it current;
    unless the ledger has this version from the same ``put``, for then it is word of that one.
    ``version`` is the SHA-256 of the content, or the id under which the source keeps exactly these
    bytes for ever.
    """

    bucket: str
    key: str
    version: str
    size: int
    path: str  # lake key of the bytes
    at: float
    handle: str
    refused: str = ""  # why it cannot be admitted at all, if so
    fresh: bool = False
    put: str = ""  # names the act of putting it, where the source can tell one from the next
    digest: str = ""  # SHA-256 of the content, where that is known and not the version
    order: str = ""  # of two puts of a key, the later has the higher; equal: cannot be told
    parked: str = ""  # why a person has to look before it is taken, if so


@dataclass(frozen=True)
class Stored:
    """An object of the lake's raw area, as a listing shows it: nothing was read."""

    path: str
    at: float  # when it came to be there
    key: str  # its key as far as the path tells
    beside: str = ""  # other versions of it have paths that begin so and are as long


@dataclass(frozen=True)
class Stray:
    """Objects that wait where no pipeline looks."""

    name: str  # of the pipeline that they would belong to
    place: str
    objects: int
    reason: str = ""  # where it is not simply that no pipeline has this name
    next: str = ""


@dataclass(frozen=True)
class Call:
    """A schedule's word that a pipeline is to be trained. ``id``: the same however often it comes;
    ``handle`` is what dropping it needs.
    """

    id: str
    pipeline: str
    at: float  # UTC seconds
    handle: str = ""


class Notifications(Protocol):
    """Where word of new objects comes from."""

    at_once: int
    """How many notices to ask for; as many as were asked for: there may be more."""
    ordered: bool
    """Whether the notices of one key come in the order in which it was put."""

    def exclusive(self, pipeline: str) -> AbstractContextManager[None]:
        """Hold while receiving, recording and acknowledging. Raises ``Conflict`` when held."""
        ...

    def receive(self, pipeline: str, settle: float, limit: int) -> list[Notice]:
        """Objects not yet acknowledged, whole and pinned in the lake, oldest first.

        A notice may come again until it is acknowledged, and may be a duplicate.
        """
        ...

    def acknowledge(self, notices: Iterable[Notice]) -> None:
        """Drop notices that the ledger now holds. Doing it twice is harmless."""
        ...

    def calls(self, pipeline: str) -> list[Call]:
        """Schedule events for this pipeline that were not dropped yet, oldest first."""
        ...

    def drop(self, calls: Iterable[Call]) -> None:
        """Forget schedule events that the registry now holds. Doing it twice is harmless."""
        ...

    def later(self, path: str, than: str) -> bool | None:
        """Whether one version of a key was put later than another one; None: cannot be told."""
        ...

    def admit(self, pipeline: str, key: str, file: Path) -> Notice:
        """Copy a file into the lake whole, at once, and give its notice (already settled)."""
        ...

    def stored(self, pipeline: str, after: str, limit: int) -> list[Stored]:
        """Up to ``limit`` objects of the raw area that come after this path, sorted by key.

        Neither manifests nor drafts are among them. Fewer than ``limit``: there are no more.
        """
        ...

    def identify(self, stored: Stored, key: str) -> Notice | None:
        """Read an object of the raw area and give a notice of it under this key; None if gone."""
        ...

    def arrived(self, path: str) -> float | None:
        """When an object of the raw area came to be there; None if it is not."""
        ...

    def tidy(self, pipeline: str) -> int:
        """Remove what crashes left at the source and nobody will ask for; gives how many."""
        ...

    def strays(self, known: Collection[str]) -> list[Stray]:
        """Places with objects that nobody takes in, for they belong to none of these pipelines."""
        ...
