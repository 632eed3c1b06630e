"""The model's numbers as CSV text: the form that XGBoost containers train and predict on.

Every value is a float32 in the shortest form that reads back as itself; NaN is an empty cell,
but ``nan`` in a row of one cell, where an empty cell would be a blank line.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK_CELLS = 2_000_000
_EXACT = float(1 << 24)  # float32 holds every integer up to here
_DIGITS = (6, 7, 8, 9)


def csv_row(values: Sequence[float]) -> str:
    """One row of float32 values without a line end, in pure Python for one request."""
    if len(values) == 1 and values[0] != values[0]:
        return "nan"
    return ",".join(map(_text, values))


def csv_lines(matrix: NDArray[np.float32]) -> Iterator[bytes]:
    """The rows of a float32 matrix as CSV bytes with line ends, in chunks of whole rows."""
    import polars as pl

    rows, width = matrix.shape
    step = max(1, _CHUNK_CELLS // max(1, width))
    for start in range(0, rows, step):
        chunk = pl.DataFrame(matrix[start : start + step], orient="row")
        written = chunk.with_columns(pl.all().fill_nan(None))
        # Written as integers, pixels and one-hot columns take half the bytes and time.
        whole = [
            column.name
            for column in written
            if bool(((column == column.round()) & (column.abs() < _EXACT)).all())
        ]
        text = written.with_columns(pl.col(whole).cast(pl.Int32)).write_csv(
            include_header=False, null_value="nan" if width == 1 else ""
        )
        yield text.encode()


def _text(value: float) -> str:
    if value != value:
        return ""
    if -_EXACT < value < _EXACT and value == int(value):
        return str(int(value))
    for digits in _DIGITS:
        text = f"{value:.{digits}g}"
        if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
            return text
    return repr(value)


def bodies(rows: Sequence[str], most: int) -> Iterator[bytes]:
    """Rows as requests of whole lines, each of at most so many bytes unless it is a single row."""
    lines: list[bytes] = []
    size = 0
    for row in rows:
        line = row.encode() + b"\n"
        if lines and size + len(line) > most:
            yield b"".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield b"".join(lines)
