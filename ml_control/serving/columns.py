"""A stream's records as rows, column by column with numpy: the bytes of ``PlainCodec``, faster.

Messages are read straight into a type with the model's own features: one pass, no dictionary, no
key looked up. Only plain ones are taken so (every key once, a number where a number is, a text
where a category is); all others are read as strictly as a request, one by one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ml_control.core.batch import encode_rows
from ml_control.core.features import FeatureSpec
from ml_control.core.kinds import ImageFeature, NumberFeature
from ml_control.errors import BadObject
from ml_control.ports import StreamRecord
from ml_control.serving.handlers.bodies import ID, Strict, Value
from ml_control.serving.handlers.envelopes import Item, Opener, derived_id
from ml_control.serving.handlers.row_codec import Rows
from ml_control.serving.recordio import row_frame

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEPT = 64  # shapes
_ID = re.compile(ID)
_LONGEST_ID = 128
_BRACE = ord("{")
_Plain = TypeVar("_Plain")


class _Message(Strict, Generic[_Plain], gc=False):
    record: _Plain
    entity_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class _Shape:
    """The keys of a record: numbers and categories by name, and names that are not used."""

    features: tuple[tuple[str, bool], ...]  # name, whether it is a number
    spare: tuple[str, ...]


@dataclass(frozen=True)
class _Bounds:
    """What lies outside its range, column by column; None where no column has one."""

    low: NDArray[np.float64] | None
    high: NDArray[np.float64] | None


class ColumnCodec:
    """``handlers.row_codec.RowCodec`` with numpy."""

    def __init__(self) -> None:
        self._shapes: dict[str, _Shape | None] = {}
        self._openers: dict[_Shape, tuple[_Shape, Opener]] = {}
        self._bounds: dict[str, _Bounds | None] = {}

    def opener(self, encodings: Sequence[FeatureSpec]) -> Opener | None:
        """See ``RowCodec``: there is one when all encodings take the same keys."""
        shapes = {self._shape(features) for features in encodings}
        shape = shapes.pop() if len(shapes) == 1 else None
        return None if shape is None else self._openers[shape][1]

    def encode(self, features: FeatureSpec, items: Sequence[Item]) -> Rows:
        """See ``RowCodec``."""
        import numpy as np

        shape = self._shape(features)
        places = [i for i, item in enumerate(items) if item.values and item.shape is shape]
        matrix: NDArray[np.float32] = np.empty((0, features.width), np.float32)
        if places:
            try:
                matrix = self._matrix(features, [items[place].values for place in places])
            except (ValueError, OverflowError, TypeError):
                places = []
        if len(places) == len(items):
            return _framed(matrix, places, {})
        bad: dict[int, BadObject] = {}
        rows: dict[int, list[float]] = {}
        for place in set(range(len(items))).difference(places):
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

    def _shape(self, features: FeatureSpec) -> _Shape | None:
        """The shape of plain records: the same object for all encodings that have it."""
        if features.digest not in self._shapes:
            _make_room(self._shapes)
            shape = _shape_of(features)
            if shape is not None and shape not in self._openers:
                _make_room(self._openers)
                self._openers[shape] = shape, _opener_of(shape)
            self._shapes[features.digest] = None if shape is None else self._openers[shape][0]
        return self._shapes[features.digest]

    def _matrix(self, features: FeatureSpec, values: list[Any]) -> NDArray[np.float32]:
        """Rows of values, numbers or None for numbers, as they are encoded."""
        import numpy as np

        if features.digest not in self._bounds:
            _make_room(self._bounds)
            self._bounds[features.digest] = _bounds_of(features)
        bounds = self._bounds[features.digest]
        if bounds is None:
            return encode_rows(features, values)
        matrix = _doubles(values, features.width)
        if bounds.low is not None:
            matrix[matrix < bounds.low] = np.nan
        if bounds.high is not None:
            matrix[matrix > bounds.high] = np.nan
        with np.errstate(over="ignore"):
            narrow = matrix.astype(np.float32)
        narrow[np.isinf(narrow)] = np.nan
        return narrow


def _doubles(values: list[Any], width: int) -> NDArray[np.float64]:
    """Rows of numbers, NaN for None. Packing numbers takes half of the time of iterating them."""
    import numpy as np

    pack = struct.Struct(f"={width}d").pack
    try:
        flat = np.frombuffer(bytearray().join([pack(*row) for row in values]), np.float64)
    except struct.error:  # a None
        flat = np.fromiter(chain.from_iterable(values), np.float64, len(values) * width)
    return flat.reshape(len(values), width)


def _make_room(kept: dict[Any, Any]) -> None:
    while len(kept) >= _KEPT:
        kept.pop(next(iter(kept)))


def _shape_of(features: FeatureSpec) -> _Shape | None:
    """The keys of plain records; None for images, which are read one by one."""
    named = features.features
    if any(isinstance(feature, ImageFeature) for feature in named):
        return None
    names = tuple((one.name, isinstance(one, NumberFeature)) for one in named)
    return _Shape(names, tuple(sorted(set(features.ignore) - {name for name, _ in names})))


def _bounds_of(features: FeatureSpec) -> _Bounds | None:
    """The ranges of the columns; None where not every feature is a number."""
    import numpy as np

    numbers = [one for one in features.features if isinstance(one, NumberFeature)]
    if len(numbers) < len(features.features):
        return None
    low = np.array([-np.inf if one.min is None else one.min for one in numbers])
    high = np.array([np.inf if one.max is None else one.max for one in numbers])
    return _Bounds(
        None if np.isneginf(low).all() else low, None if np.isposinf(high).all() else high
    )


def _opener_of(shape: _Shape) -> Opener:
    """Reads messages of this shape, whole ones first: nothing missing and nothing null."""
    whole, some = _decoder(shape, required=True), _decoder(shape, required=False)
    as_tuple, width = msgspec.structs.astuple, len(shape.features)
    bare = not shape.spare
    # Of braces that may stand in texts there are none among numbers, unless in a key.
    unbraced = (
        all(number and not {"{", "}"} & set(name) for name, number in shape.features) and bare
    )

    def read(data: bytes) -> tuple[Any, tuple[Any, ...], int] | None:
        """The message, its values and how many keys it has; None for what is not plain."""
        try:
            found = whole(data)
            values = as_tuple(found.record)
            return (
                found,
                values,
                width + 1 if bare else len(values) + 1 - values[width:].count(None),
            )
        except (ValueError, RecursionError):
            try:
                found = some(data)
            except (ValueError, RecursionError):
                return None
            values = as_tuple(found.record)
            return found, values, len(values) + 1 - values.count(None)

    def open_all(pipeline: str, records: Sequence[StreamRecord]) -> list[Item | None]:
        if unbraced:
            together = _open_together(whole, width + 1, pipeline, records, shape)
            if together is not None:
                return together
        return [open_one(pipeline, record) for record in records]

    def open_one(pipeline: str, record: StreamRecord) -> Item | None:
        data = record.data
        opened = read(data)
        if opened is None:
            return None
        found, values, keys = opened
        entity, request = found.entity_id, found.request_id
        plain = unbraced
        if entity is not None:
            keys += 1
            plain = plain and _are_plain([entity])
        if request is not None:
            keys += 1
            plain = plain and _are_plain([request])
        # Each key has a colon: there are more when one came twice, was null, or a text has
        # one. With two pairs of braces the inner one is the record.
        if data.count(b":") != keys or not (
            plain or (data.count(b"{") == 2 == data.count(b"}") and _are_ids(entity, request))
        ):
            return None
        begin = data.index(b"{", data.index(b"{") + 1)
        return Item(
            record.sequence,
            record.key,
            request or derived_id(pipeline, record.sequence),
            entity or record.key,
            data,
            b"[%b]" % data[begin : data.index(b"}", begin) + 1],
            values if bare else values[:width],
            shape,
        )

    return open_all


def _open_together(
    decode: Callable[[bytes], Any],
    keys: int,
    pipeline: str,
    records: Sequence[StreamRecord],
    shape: _Shape,
) -> list[Item | None] | None:
    """Items of records that are all whole and plain; None when one is not.

    ``keys`` are those of a message without ids. Each has a colon, so that no message has fewer
    colons than keys: when the sums are equal, none has a key twice.
    """
    import numpy as np

    datas = [record.data for record in records]
    try:
        found = [decode(data) for data in datas]
    except (ValueError, RecursionError):
        return None
    entities, requests = [one.entity_id for one in found], [one.request_id for one in found]
    ids = [id for id in (*entities, *requests) if id is not None]
    if ids and not _are_plain(ids):
        return None
    colons = np.count_nonzero(np.frombuffer(b"".join(datas), np.uint8) == ord(":"))
    if colons != keys * len(datas) + len(ids):
        return None
    values_of = msgspec.structs.astuple
    items: list[Item | None] = []
    for record, data, one, entity, request in zip(
        records, datas, found, entities, requests, strict=True
    ):
        begin = data.index(b"{", 1 if data[0] == _BRACE else data.index(b"{") + 1)
        items.append(
            Item(
                record.sequence,
                record.key,
                request or derived_id(pipeline, record.sequence),
                entity or record.key,
                data,
                b"".join((b"[", data[begin : data.index(b"}", begin) + 1], b"]")),
                values_of(one.record),
                shape,
            )
        )
    return items


def _are_plain(ids: list[str]) -> bool:
    """Whether all are certainly ids, without a brace: the pattern takes five times as long."""
    together = "".join(ids)
    return (
        all(ids)
        and max(map(len, ids)) <= _LONGEST_ID
        and together.isascii()
        and together.replace("-", "").replace("_", "").isalnum()
    )


def _are_ids(*texts: str | None) -> bool:
    return all(text is None or _ID.search(text) for text in texts)


def _decoder(shape: _Shape, *, required: bool) -> Callable[[bytes], Any]:
    kinds: list[Any] = []
    names: dict[str, str] = {}
    for i, (name, number) in enumerate(shape.features):
        kind: Any = float if number else str
        names[f"f{i}"] = name
        kinds.append((f"f{i}", kind) if required else (f"f{i}", kind | None, None))
    # Keys that are not used are read all the same, so that what is logged is sound JSON.
    for i, name in enumerate(shape.spare):
        names[f"i{i}"] = name
        kinds.append((f"i{i}", Value, None))
    record = msgspec.defstruct(
        "PlainRecord", kinds, rename=names, forbid_unknown_fields=True, gc=False
    )
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(_Message[record]).decode  # type: ignore[valid-type]
    return decode


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
