"""Bodies of many records, with numpy; those of a few as the handlers do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ml_control.core.batch import encode_records
from ml_control.core.features import FeatureSpec
from ml_control.serving.handlers.rows import RECORDS, wrong_answer

MANY = 16  # records from which on numpy pays


class BatchCodec:
    """``handlers.rows.Codec``, column by column where there are many records."""

    def encode(self, features: FeatureSpec, records: Sequence[Mapping[str, Any]]) -> bytes:
        """See ``Codec``."""
        if len(records) < MANY:
            return RECORDS.encode(features, records)
        matrix = encode_records(features, records)
        # orjson writes a float32 in the shortest form that reads back as itself, NaN as null.
        text = orjson.dumps(matrix, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
        lines = text.replace(b"],[", b"\n")
        if b"null" not in lines:
            return lines
        return lines.replace(b"null", b"nan" if features.width == 1 else b"")

    def decode(self, features: FeatureSpec, rows: int, body: bytes) -> list[dict[str, Any]]:
        """See ``Codec``."""
        if rows < MANY or features.task == "multiclass":
            return RECORDS.decode(features, rows, body)
        try:
            values = orjson.loads(b"[" + body.strip().replace(b"\n", b",") + b"]")
        except ValueError:
            raise wrong_answer(rows, body) from None
        if len(values) != rows or not set(map(type, values)) <= {float, int}:
            raise wrong_answer(rows, body)
        scores = list(map(float, values))
        if features.task == "regression":
            return [{"label": None, "score": one, "probabilities": None} for one in scores]
        negative, positive = features.labels
        return [
            {
                "label": positive if one >= 0.5 else negative,
                "score": one,
                "probabilities": {negative: 1.0 - one, positive: one},
            }
            for one in scores
        ]
