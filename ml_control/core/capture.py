"""What is kept of a request's records: a share of the requests, without the masked columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

from ml_control.spec import Log


def is_captured(log: Log, request_id: str) -> bool:
    """Whether this request's records are kept."""
    if log.capture >= 1:
        return True
    return (xxh3_64_intdigest(request_id.encode()) >> 11) * 2.0**-53 < log.capture


def captured(records: Sequence[Mapping[str, Any]], log: Log, request_id: str) -> bytes | None:
    """The records as JSON, or None when this request's are not kept."""
    if not is_captured(log, request_id):
        return None
    if log.mask:
        hidden = frozenset(log.mask)
        records = [{k: v for k, v in one.items() if k not in hidden} for one in records]
    return orjson.dumps(records)
