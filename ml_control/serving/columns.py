"""A stream's records as rows, column by column with numpy: the bytes of ``PlainCodec``, faster.

Records are read straight into a type with the model's own features, which makes no dictionary and
looks no key up. Whatever does not fit that type (a number as text, an explicit type of another
kind, a key that is left out twice) is read as strictly as any request, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ml_control.core.batch import encode_columns
from ml_control.core.features import FeatureSpec
from ml_control.core.kinds import ImageFeature, NumberFeature
from ml_control.errors import BadObject
from ml_control.serving.handlers.bodies import Value
from ml_control.serving.handlers.envelopes import Item
from ml_control.serving.handlers.row_codec import Rows
from ml_control.serving.recordio import row_frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEPT = 64  # readers
_Reader = Callable[[bytes], list[Any]]


class ColumnCodec:
    """``handlers.row_codec.RowCodec`` with numpy."""

    def __init__(self) -> None:
        self._readers: dict[str, tuple[_Reader, int] | None] = {}

    def encode(self, features: FeatureSpec, items: Sequence[Item]) -> Rows:
        """See ``RowCodec``."""
        import numpy as np

        reader = self._reader(features)
        fast, places, slow = _read(reader, items) if reader else ([], [], list(range(len(items))))
        matrix: NDArray[np.float32] = np.empty((0, features.width), np.float32)
        if fast:
            try:
                matrix = encode_columns(features, list(zip(*fast, strict=True)))
            except (ValueError, OverflowError, TypeError):
                places, slow = [], list(range(len(items)))
        if not slow:
            return _framed(matrix, places, {})
        bad: dict[int, BadObject] = {}
        rows: dict[int, list[float]] = {}
        for place in slow:
            try:
                rows[place] = features.encode_record(items[place].read())
            except BadObject as error:
                bad[place] = error
        order = sorted([*places, *rows])
        whole = np.empty((len(order), features.width), np.float32)
        at = {place: row for row, place in enumerate(order)}
        if places:
            whole[[at[place] for place in places]] = matrix
        for place, row in rows.items():
            whole[at[place]] = row
        return _framed(whole, order, bad)

    def _reader(self, features: FeatureSpec) -> tuple[_Reader, int] | None:
        """What reads plain records of these features, and how many keys they have."""
        key = features.digest
        if key not in self._readers:
            while len(self._readers) >= _KEPT:
                self._readers.pop(next(iter(self._readers)))
            self._readers[key] = _reader_of(features)
        return self._readers[key]


def _reader_of(features: FeatureSpec) -> tuple[_Reader, int] | None:
    named = features.features
    if any(isinstance(feature, ImageFeature) for feature in named):
        return None
    kinds: list[tuple[str, Any, Any]] = [
        (f"f{i}", float | None if isinstance(one, NumberFeature) else str | None, None)
        for i, one in enumerate(named)
    ]
    names = {f"f{i}": one.name for i, one in enumerate(named)}
    # Keys that are not used are read all the same, so that what is logged is sound JSON.
    spare = [name for name in features.ignore if name not in names.values()]
    kinds += [(f"i{i}", Value, None) for i in range(len(spare))]
    names |= {f"i{i}": name for i, name in enumerate(spare)}
    shape = msgspec.defstruct("PlainRecord", kinds, rename=names, forbid_unknown_fields=True)
    return msgspec.json.Decoder(list[shape]).decode, len(named)  # type: ignore[valid-type]


def _read(
    reader: tuple[_Reader, int], items: Sequence[Item]
) -> tuple[list[tuple[Any, ...]], list[int], list[int]]:
    """The feature values of plain records, their places, and the places of all others."""
    decode, width = reader
    as_tuple = msgspec.structs.astuple
    fast: list[tuple[Any, ...]] = []
    places: list[int] = []
    slow: list[int] = []
    for place, item in enumerate(items):
        text = item.text
        try:
            (found,) = decode(text)
        except (ValueError, RecursionError):
            slow.append(place)
            continue
        values = as_tuple(found)
        # Each key has a colon. Fewer keys than colons: one came twice, was null, or a text has one.
        if text.count(b":") != len(values) - values.count(None):
            slow.append(place)
            continue
        fast.append(values if len(values) == width else values[:width])
        places.append(place)
    return fast, places, slow


def _framed(matrix: NDArray[np.float32], places: list[int], bad: dict[int, BadObject]) -> Rows:
    """A float32 matrix (rows, features) as RecordIO."""
    import numpy as np

    rows, width = matrix.shape
    head, tail = row_frame(width)
    size = len(head) + 4 * width + len(tail)
    frames = np.empty((rows, size), np.uint8)
    frames[:, : len(head)] = np.frombuffer(head, np.uint8)
    frames[:, len(head) : size - len(tail)] = (
        np.ascontiguousarray(matrix, "<f4").view(np.uint8).reshape(rows, 4 * width)
    )
    frames[:, size - len(tail) :] = 0
    return Rows(frames.tobytes(), size, places, bad)


COLUMNS = ColumnCodec()
