"""Sticky assignment: which variant an entity is sent to, by a hash of the rollout and the entity.

The hash is XXH3 (64 bits, https://github.com/Cyan4973/xxHash), seeded by the rollout's id, so that
every rollout deals the entities anew. Its top 53 bits are a point in [0, 1); the challenger takes
[0, share). An entity that the challenger has therefore keeps it while its share grows, and nothing
but the rollout's id, the entity's id and the share decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from xxhash import xxh3_64_intdigest

_SHIFT = 11  # 64 - 53: what a float holds exactly
_UNIT = 2.0**-53


@lru_cache(maxsize=1024)
def seed_of(rollout_id: str) -> int:
    """The seed that a rollout's id gives."""
    return xxh3_64_intdigest(rollout_id.encode())


def point(rollout_id: str, entity_id: str) -> float:
    """The entity's place in [0, 1)."""
    return (xxh3_64_intdigest(entity_id.encode(), seed_of(rollout_id)) >> _SHIFT) * _UNIT


def to_challenger(rollout_id: str, entity_id: str, share: float) -> bool:
    """Whether the challenger takes this entity, at its present share of entities (0 to 1)."""
    return (xxh3_64_intdigest(entity_id.encode(), seed_of(rollout_id)) >> _SHIFT) * _UNIT < share


def all_to_challenger(rollout_id: str, entity_ids: Sequence[str], share: float) -> list[bool]:
    """:func:`to_challenger` of many entities at once."""
    bound, seed = threshold(share), seed_of(rollout_id)
    return [xxh3_64_intdigest(entity.encode(), seed) < bound for entity in entity_ids]


def threshold(share: float) -> int:
    """The first hash that is not the challenger's: ``(h >> 11) * 2**-53 < share`` as integers."""
    if share <= 0.0:
        return 0
    if share >= 1.0:
        return 1 << 64
    scaled = share * 2.0**53  # exact: a power of two
    whole = int(scaled)
    return (whole if scaled == whole else whole + 1) << _SHIFT
