"""The kinds of feature: each turns a column of a table, or a value of a record, into numbers.

Both ways follow one rule, which :class:`ml_control.core.features.FeatureSpec` states.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from ml_control.core.records import Record
from ml_control.core.tabular import category_cell, number_cell
from ml_control.errors import BadObject
from ml_control.spec import ImageShape

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_NAN = float("nan")
_INFINITE = float("inf")
_PLAIN = frozenset({float, int})


class NumberFeature(Record):
    """One column of the matrix. A value outside [min, max] is missing."""

    kind: Literal["number"] = "number"
    name: str
    min: float | None = None
    max: float | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The matrix column."""
        return (self.name,)

    def block(self, series: pl.Series) -> NDArray[np.float32]:
        """A numeric column as float32, shape (rows, 1)."""
        import numpy as np
        import polars as pl

        values = series.cast(pl.Float64).fill_null(_NAN).to_numpy(writable=True)
        if self.min is not None:
            values[values < self.min] = _NAN
        if self.max is not None:
            values[values > self.max] = _NAN
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        narrow[np.isinf(narrow)] = _NAN
        return narrow[:, np.newaxis]

    def cells(self, value: Any, missing: frozenset[str]) -> tuple[float, ...]:
        """One value. Raises ``ValueError`` with the reason when it is not a number."""
        number = number_cell(value, missing)
        if number is None:
            return (_NAN,)
        if self.min is not None and number < self.min:
            return (_NAN,)
        if self.max is not None and number > self.max:
            return (_NAN,)
        return (_narrow(number),)


class PlainNumbers:
    """All number features of a record at once, where it has exactly them and no value is odd."""

    def __init__(self, features: Sequence[NumberFeature]) -> None:
        self._count = len(features)
        self._values = itemgetter(*(feature.name for feature in features))
        self._single = struct.Struct(f"<{len(features)}f")
        self._bounds: list[tuple[float, float]] = [
            (-_INFINITE if f.min is None else f.min, _INFINITE if f.max is None else f.max)
            for f in features
        ]
        self._bounded = any(f.min is not None or f.max is not None for f in features)

    def cells(self, record: Mapping[str, Any]) -> list[float] | None:
        """What the features' own cells are; None for a record that they must be asked about."""
        if len(record) != self._count:
            return None
        try:
            values = self._values(record)
            # A sum is finite only if every part is; the types keep texts, None and booleans out.
            if not (set(map(type, values)) <= _PLAIN and math.isfinite(sum(values))):
                return None
            narrow = self._single.unpack(self._single.pack(*values))
        except (KeyError, OverflowError):
            return None
        if not self._bounded:
            return list(narrow)
        return [
            single if low <= value <= high else _NAN
            for value, single, (low, high) in zip(values, narrow, self._bounds, strict=True)
        ]


class CategoryFeature(Record):
    """One column for each level (onehot), or one column with the level's rank (ordinal)."""

    kind: Literal["category"] = "category"
    name: str
    levels: tuple[str, ...]
    encoding: Literal["onehot", "ordinal"]

    @property
    def columns(self) -> tuple[str, ...]:
        """The matrix columns."""
        if self.encoding == "ordinal":
            return (self.name,)
        return tuple(f"{self.name}={level}" for level in self.levels)

    @cached_property
    def _blocks(self) -> dict[str, tuple[float, ...]]:
        if self.encoding == "ordinal":
            return {level: (float(rank),) for rank, level in enumerate(self.levels)}
        places = range(len(self.levels))
        return {
            level: tuple(float(rank == place) for place in places)
            for rank, level in enumerate(self.levels)
        }

    @cached_property
    def _missing(self) -> tuple[float, ...]:
        return (_NAN,) * len(self.columns)

    @cached_property
    def _unseen(self) -> tuple[float, ...]:
        return self._missing if self.encoding == "ordinal" else (0.0,) * len(self.columns)

    def block(self, series: pl.Series) -> NDArray[np.float32]:
        """A text column as float32, shape (rows, its matrix columns)."""
        import numpy as np
        import polars as pl

        places = {level: place for place, level in enumerate(self.levels)}
        unseen, missing = len(places), len(places) + 1
        table = np.array([*self._blocks.values(), self._unseen, self._missing], dtype=np.float32)
        texts = series.cast(pl.String)
        codes = texts.replace_strict(places, default=unseen, return_dtype=pl.Int64)
        chosen: NDArray[np.float32] = table[
            np.where(texts.is_null().to_numpy(), missing, codes.to_numpy())
        ]
        return chosen

    def cells(self, value: Any, missing: frozenset[str]) -> tuple[float, ...]:
        """One value. Raises ``ValueError`` with the reason when it is not a category."""
        level = category_cell(value, missing)
        return self._missing if level is None else self._blocks.get(level, self._unseen)


class ImageFeature(Record):
    """Every sample of an image of one shape, 0..255, rows first, colour last."""

    kind: Literal["image"] = "image"
    name: Literal["pixels"] = "pixels"
    height: int
    width: int
    mode: Literal["grey", "colour"] = "grey"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The matrix columns: p0, p1, ..."""
        samples = self.height * self.width * (3 if self.mode == "colour" else 1)
        return tuple(f"p{place}" for place in range(samples))

    def block(self, series: pl.Series) -> NDArray[np.float32]:
        """Binary (uint8 samples), list or array column as float32, shape (rows, samples)."""
        import numpy as np
        import polars as pl

        width = len(self.columns)
        if isinstance(series.dtype, pl.Array):
            lengths = pl.Series([series.dtype.size]).new_from_index(0, len(series))
        else:
            lengths = series.bin.size() if series.dtype == pl.Binary else series.list.len()
        wrong = (series.is_null() | (lengths != width)).arg_true()
        if len(wrong):
            row = int(wrong[0]) + 1
            raise BadObject("table", f"row {row} has no image of {width} samples", row=row)
        if series.dtype == pl.Binary:
            flat = np.frombuffer(b"".join(series.to_list()), dtype=np.uint8)
        else:
            flat = series.explode().to_numpy()
        return flat.astype(np.float32).reshape(len(series), width)

    def samples(self, record: Mapping[str, Any]) -> list[float]:
        """``{"image": <base64>}`` or ``{"pixels": [...]}`` as samples.

        Raises ``BadObject`` for anything else.
        """
        if set(record) == {"image"}:
            return self._decoded(record["image"])
        if set(record) != {"pixels"}:
            keys = ", ".join(sorted(map(str, record))) or "nothing"
            raise BadObject("record", f"an image record has 'image' or 'pixels', not {keys}")
        samples = list(_flat(record["pixels"]))
        if len(samples) != len(self.columns):
            raise BadObject(
                "record",
                f"pixels has {len(samples)} samples; {self.height} x {self.width} "
                f"{self.mode} has {len(self.columns)}",
                column="pixels",
            )
        return samples

    def _decoded(self, text: Any) -> list[float]:
        import base64

        from ml_control.core.images import decode

        try:
            data = base64.b64decode(text, validate=True)
        except (TypeError, ValueError) as error:
            raise BadObject("record", f"image is not base64: {error}", column="image") from None
        shape = ImageShape(height=self.height, width=self.width, mode=self.mode)
        return [float(sample) for sample in decode(data, shape, "record").ravel().tolist()]


def _narrow(value: float) -> float:
    """The nearest float32; NaN when it is too large for one."""
    try:
        narrow: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return _NAN
    return narrow


def _flat(value: Any, depth: int = 3) -> Iterator[float]:
    """Samples of rows of columns of channels; deeper nesting is refused, not followed."""
    if isinstance(value, list | tuple) and depth:
        for item in value:
            yield from _flat(item, depth - 1)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 255:
        raise BadObject("record", f"{value!r} is not a pixel of 0..255", column="pixels")
    else:
        yield _narrow(float(value))
