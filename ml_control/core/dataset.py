"""Which split a row belongs to, and what names it: by its content, never by where it arrived.

polars' and pandas' own hashes may change with their version, which would move rows between
splits, so the hash here is written out: multiplications and shifts over the bits of numbers and
over BLAKE2b of texts, added up over the columns, and SplitMix64 over the sum. The same content
gives the same hash in every run, version and partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from ml_control.spec import Split

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_ABSENT = 0x6D697373696E6721
_PIECE = 8192
_FEW = 200
_SPLIT_SALT = 0x73706C69742D7631  # changing it moves every row of every pipeline
TRAIN, VALIDATION, TEST = "train", "validation", "test"


def content_hash(frame: pl.DataFrame, columns: Sequence[str]) -> NDArray[np.uint64]:
    """One uint64 for each row, from the values of *columns*; shape (rows,).

    Numbers count by value (5 and 5.0 and, zero being zero, 0.0 and -0.0 are equal), NaN as
    missing. The order of *columns* does not matter. Boolean, number, text and binary columns
    are read; a list column raises ``TypeError``.
    """
    import numpy as np

    read = [(_bits(frame[column]), _factor(column)) for column in columns]
    total = np.zeros(frame.height, dtype=np.uint64)
    # Pieces that stay in the processor's cache, and no new arrays: twice as fast.
    bits, shifted = np.empty((2, min(_PIECE, frame.height)), dtype=np.uint64)
    for start in range(0, frame.height, _PIECE):
        sums = total[start : start + _PIECE]
        b, s = bits[: len(sums)], shifted[: len(sums)]
        for values, factor in read:
            part = values[start : start + _PIECE]
            if part.dtype == np.float64:
                np.add(part, 0.0, out=b.view(np.float64))  # -0.0 to 0.0
                absent = np.isnan(part)
                if absent.any():
                    b[absent] = _ABSENT
            else:
                b[:] = part
            _tie(b, s, factor)
            sums += b
    return _mix(total)


def _tie(bits: NDArray[np.uint64], spare: NDArray[np.uint64], factor: np.uint64) -> None:
    """Tie each value to its column in place, so that swapped values differ in the sum.

    Small numbers differ in the upper bits of a float only and products keep trailing zeros, so
    the upper bits are folded down before each of the two multiplications.
    """
    import numpy as np

    np.right_shift(bits, np.uint64(32), out=spare)
    bits ^= spare
    bits *= factor
    np.right_shift(bits, np.uint64(29), out=spare)
    bits ^= spare
    bits *= np.uint64(_SECOND)


def hash_bytes(blobs: Sequence[bytes]) -> NDArray[np.uint64]:
    """One uint64 for each blob, such as the pixel bytes of an image; shape (blobs,)."""
    import numpy as np

    return np.fromiter((_of_bytes(blob) for blob in blobs), dtype=np.uint64, count=len(blobs))


def assign_split(hashes: NDArray[np.uint64], split: Split) -> pl.Series:
    """``train``, ``validation`` or ``test`` for each hash, as texts.

    Equal rows share a split. Each share is exact in expectation over different contents.
    """
    import numpy as np
    import polars as pl

    share = (_mix(hashes ^ np.uint64(_SPLIT_SALT)) >> np.uint64(11)) * 2.0**-53
    chosen = (share < split.test + split.validation).astype(np.uint32)
    chosen += share < split.test
    return pl.Series("split", [TRAIN, VALIDATION, TEST], dtype=pl.String).gather(chosen)


def row_ids(object_version: str, n: int, first: int = 1) -> pl.Series:
    """Stable ids of *n* rows of an object version, in order from row *first*; counted from 1."""
    import polars as pl

    prefix = blake2b(object_version.encode(), digest_size=8).hexdigest()
    if n <= _FEW:  # polars' own way has a price that is paid for each of thousands of files
        ids = [f"{prefix}-{row}" for row in range(first, first + n)]
        return pl.Series("row_id", ids, dtype=pl.String)
    rows = pl.int_range(first, first + n, eager=True).cast(pl.String)
    return (f"{prefix}-" + rows).alias("row_id")


def _factor(column: str) -> np.uint64:
    """A column's own odd multiplier: odd, so that no two values become one."""
    import numpy as np

    return np.uint64(_of_bytes(column.encode()) | 1)


def _of_bytes(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit changes about half of the output bits."""
    import numpy as np

    mixed = values + np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
    return mixed ^ (mixed >> np.uint64(31))


def _bits(series: pl.Series) -> NDArray[np.uint64] | NDArray[np.float64]:
    """64 bits for each value: the float itself for numbers, a digest for texts and bytes."""
    import polars as pl

    kind = series.dtype
    if kind.is_numeric() or kind == pl.Boolean:
        return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if kind not in (pl.String, pl.Binary):
        raise TypeError(f"column {series.name!r} has type {kind}, which has no content hash")
    different = series.unique().drop_nulls().to_list()
    digests = hash_bytes([v.encode() if isinstance(v, str) else v for v in different])
    known = pl.DataFrame(
        {
            "value": pl.Series(different, dtype=kind),
            "digest": pl.Series(digests, dtype=pl.UInt64),
        }
    )
    joined = (
        series.alias("value").to_frame().join(known, on="value", how="left", maintain_order="left")
    )
    return joined["digest"].fill_null(_ABSENT).to_numpy()
