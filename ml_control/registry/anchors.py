"""Anchors: hashes of decisions kept outside of the registry, so that rewriting it whole shows.

The chain of hashes finds a changed or removed decision. Whoever may write the registry could make
the whole chain anew; what was noted elsewhere meanwhile would not agree with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

EVERY = 100  # decisions, beside those that are always anchored
_ALWAYS = ("gated", "promote", "roll", "revert", "approve", "restored")
RESTORED = "restored"


@dataclass(frozen=True)
class Anchor:
    """The hash of one decision of a pipeline."""

    pipeline: str
    seq: int
    hash: str
    action: str
    keeps: int | None = None  # of a restore: how long the restored chain was


class Anchors(Protocol):
    """Where anchors are kept: appended to, and read whole for one pipeline."""

    def add(self, anchor: Anchor) -> None:
        """Keep an anchor. Raises ``PlatformFailed`` when it cannot be written."""
        ...

    def of(self, pipeline: str) -> list[Anchor]:
        """A pipeline's anchors, oldest first. Raises ``PlatformFailed``."""
        ...


def wanted(action: str, seq: int) -> bool:
    """Whether a decision gets an anchor: what decides about serving, and every hundredth."""
    return action.startswith(_ALWAYS) or seq % EVERY == 0


def in_force(anchors: Iterable[Anchor]) -> dict[int, Anchor]:
    """The anchors that the chain must agree with, by sequence number.

    A restored backup is an earlier chain: what was anchored beyond its end is not in it.
    """
    found: dict[int, Anchor] = {}
    for anchor in anchors:
        if anchor.action == RESTORED:
            keeps = anchor.seq - 1 if anchor.keeps is None else anchor.keeps
            found = {seq: kept for seq, kept in found.items() if seq <= keeps}
        found[anchor.seq] = anchor
    return found
