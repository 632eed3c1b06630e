"""From a stream's records to the rows of one endpoint call, and from its answer to answers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ml_control.core.features import FeatureSpec
from ml_control.errors import BadObject
from ml_control.serving.handlers.envelopes import Item, Opener
from ml_control.serving.handlers.rows import scores_of, values_of
from ml_control.serving.recordio import row_frame

RECORDIO = "application/x-recordio-protobuf"


@dataclass(frozen=True)
class Rows:
    """Encoded records: frames of the same size one after the other, and whose they are."""

    body: bytes
    size: int
    places: list[int]  # of the items, in the order of the frames
    bad: dict[int, BadObject]  # items that do not fit, by place


class RowCodec(Protocol):
    """Encodes a batch; another one may be faster, and gives the same bytes."""

    def opener(self, encodings: Sequence[FeatureSpec]) -> Opener | None:
        """What opens records for all of these encodings, if there is such a way."""
        ...

    def encode(self, features: FeatureSpec, items: Sequence[Item]) -> Rows:
        """The rows of all items that fit. Frames are RecordIO, for they are read at once."""
        ...


class PlainCodec:
    """One record after the other, without numpy."""

    def opener(self, encodings: Sequence[FeatureSpec]) -> Opener | None:  # noqa: ARG002
        """See ``RowCodec``."""
        return None

    def encode(self, features: FeatureSpec, items: Sequence[Item]) -> Rows:
        """See ``RowCodec``."""
        head, tail = row_frame(features.width)
        pack = struct.Struct(f"<{features.width}f").pack
        frames: list[bytes] = []
        places: list[int] = []
        bad: dict[int, BadObject] = {}
        for place, item in enumerate(items):
            try:
                values = features.encode_record(item.read())
            except BadObject as error:
                bad[place] = error
            else:
                frames.append(b"%b%b%b" % (head, pack(*values), tail))
                places.append(place)
        return Rows(b"".join(frames), len(head) + 4 * features.width + len(tail), places, bad)


PLAIN = PlainCodec()


def answers_of(features: FeatureSpec, rows: int, body: bytes) -> list[bytes]:
    """The answer to each row, as the JSON that is logged. Raises ``PlatformFailed`` when it is no
    answer to these rows.
    """
    if features.task != "multiclass":
        scores = scores_of(rows, body)
        if scores is not None:
            return _scored(features, scores)
    values = values_of(rows, body)
    width = len(features.labels) if features.task == "multiclass" else 1
    for one in values:
        if len(one) != width:
            features.decode(one)  # which says what is wrong
    if features.task == "multiclass":
        return [_logged(features.decode(one)) for one in values]
    return _scored(features, [float(one[0]) for one in values])


def _scored(features: FeatureSpec, scores: list[float]) -> list[bytes]:
    """The answers of one number each."""
    texts = orjson.dumps(scores)[1:-1].split(b",")
    if features.task == "regression":
        return [b'[{"label":null,"score":%b}]' % text for text in texts]
    negative, positive = (
        b'[{"label":%b,"score":' % orjson.dumps(label) for label in features.labels
    )
    return [
        (positive if score >= 0.5 else negative) + text + b"}]"
        for score, text in zip(scores, texts, strict=True)
    ]


def _logged(prediction: dict[str, Any]) -> bytes:
    return orjson.dumps([{"label": prediction["label"], "score": prediction["score"]}])
