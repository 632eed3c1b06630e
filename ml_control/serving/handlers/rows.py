"""From records to the rows that an endpoint takes, and from its answer to predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from ml_control.core.features import FeatureSpec
from ml_control.errors import BadObject, PlatformFailed

CSV = "text/csv"


class Codec(Protocol):
    """Two functions that belong together; another one may be faster, and gives the same."""

    def encode(self, features: FeatureSpec, records: Sequence[Mapping[str, Any]]) -> bytes:
        """Rows of CSV. Raises ``BadObject`` with ``row`` for a record that does not fit."""
        ...

    def decode(self, features: FeatureSpec, rows: int, body: bytes) -> list[dict[str, Any]]:
        """Predictions of a CSV answer. Raises ``PlatformFailed`` when it is none of these rows."""
        ...


class RecordCodec:
    """One record after the other, without numpy."""

    def encode(self, features: FeatureSpec, records: Sequence[Mapping[str, Any]]) -> bytes:
        """See ``Codec``."""
        return b"\n".join(
            [_row(features, place, record) for place, record in enumerate(records, 1)]
        )

    def decode(self, features: FeatureSpec, rows: int, body: bytes) -> list[dict[str, Any]]:
        """See ``Codec``."""
        return [features.decode(values) for values in values_of(rows, body)]


RECORDS = RecordCodec()


def _row(features: FeatureSpec, place: int, record: Mapping[str, Any]) -> bytes:
    """A record as a line; each number in full, so that it reads back as the same float32."""
    try:
        values = features.encode_record(record)
    except BadObject as error:
        detail = {**error.detail, "row": place}
        raise BadObject(f"record {place}", error.reason, error.next, **detail) from None
    text = orjson.dumps(values)[1:-1]  # NaN as null
    if b"n" not in text:
        return text
    return b"nan" if len(values) == 1 else text.replace(b"null", b"")


def values_of(rows: int, body: bytes) -> list[list[float]]:
    """The numbers of a CSV answer, a list for each row. Raises ``PlatformFailed``."""
    lines = body.strip().replace(b"\n", b"],[")
    try:
        values: list[list[float]] = orjson.loads(b"[[" + lines + b"]]")
        numbers = all(type(value) in (float, int) for row in values for value in row)
    except (ValueError, TypeError):
        numbers = False
    if not numbers or len(values) != rows:
        raise wrong_answer(rows, body)
    return values


def scores_of(rows: int, body: bytes) -> list[float] | None:
    """The numbers of a CSV answer of one decimal number a row; None where it is another one."""
    try:
        scores: list[float] = orjson.loads(b"[" + body.strip().replace(b"\n", b",") + b"]")
    except ValueError:
        return None
    whole = len(scores) == rows == body.strip().count(b"\n") + 1
    return scores if whole and set(map(type, scores)) == {float} else None


def wrong_answer(rows: int, body: bytes) -> PlatformFailed:
    """The refusal of an answer that has no prediction for each row."""
    return PlatformFailed(
        "model answer",
        f"is not {rows} lines of finite numbers: {body[:80]!r}",
        "verify the archive with 'ml-control verify'",
    )
