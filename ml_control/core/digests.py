"""Digests: one canonical form for JSON, one hash for bytes, so equal things have equal names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and no NaN: the same value always gives the same bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256(data: bytes | memoryview) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_chunks(chunks: Iterable[bytes]) -> str:
    """Hex SHA-256 of a stream of chunks."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of a value."""
    return sha256(canonical(value))


def short(digest: str, length: int = 12) -> str:
    """The first characters of a digest: for names that people read, never for comparison."""
    return digest[:length]
