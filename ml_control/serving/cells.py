"""CSV text of plain numbers to float32, exactly and fast, with nothing but numpy.

A cell is read by arithmetic on the sixteen bytes before its end, for many cells at once: its
digits become one integer below 10**15 and its point a power of ten. Both are exact in float64,
so one division rounds as ``float(text)`` does. Whatever is not of this form (an exponent, more
digits, a word) goes through ``float`` itself.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]  # eight characters each, the first in the lowest byte

_AT_ONCE = 1 << 14  # cells: their intermediate values stay in the processor's cache
_PAD = 16
_COMMA, _NEWLINE, _MINUS = 44, 10, 45


def parse(text: bytes, width: int = 0, before: int = 0) -> NDArray[np.float32]:
    """Lines of comma-separated numbers as float32 (rows, columns); an empty cell is NaN.

    Lines end in a line feed, with or without a carriage return; the last may lack it. Raises
    ValueError, naming the line (from 1, after ``before`` others), for a cell that is no number,
    and for a line that has not the cells of the first, or not ``width`` where it is given.
    """
    import numpy as np

    if b"\r" in text:
        text = text.replace(b"\r", b"")
    if not text.endswith(b"\n"):
        text += b"\n"
    data = np.frombuffer(b"\n" * _PAD + text, np.uint8)
    ends = np.flatnonzero(data <= _COMMA)[_PAD:]
    marks = data[ends]
    if not ((marks == _COMMA) | (marks == _NEWLINE)).all():
        ends = np.flatnonzero((data == _COMMA) | (data == _NEWLINE))[_PAD:]
        marks = data[ends]
    rows = _rows(marks == _NEWLINE, width, before)
    values = np.empty(len(ends), np.float32)
    starts = np.empty_like(ends)
    starts[0], starts[1:] = _PAD, ends[:-1] + 1
    odd = [
        first + _digits(data, starts[part], ends[part], values[part])
        for first in range(0, len(ends), _AT_ONCE)
        for part in (slice(first, first + _AT_ONCE),)
    ]
    with np.errstate(over="ignore"):  # beyond float32 is infinite, as in a cast
        for cell in np.concatenate(odd).tolist():
            word = text[starts[cell] - _PAD : ends[cell] - _PAD]
            values[cell] = np.float64(_word(word, before + cell * rows // len(ends) + 1))
    return values.reshape(rows, -1)


def _rows(last: NDArray[np.bool_], width: int, before: int) -> int:
    """How many lines there are, once all have the same number of cells."""
    import numpy as np

    rows = int(np.count_nonzero(last))
    width = width or int(last.argmax()) + 1
    if len(last) == rows * width and last[width - 1 :: width].all():
        return rows
    counts = np.diff(np.flatnonzero(last), prepend=-1)
    line = int((counts != width).argmax())
    said = f"has {counts[line]} columns where {width} are expected"
    raise ValueError(f"line {before + line + 1} {said}")


def _word(word: bytes, line: int) -> float:
    text = word.decode(errors="replace").strip()
    try:
        if "_" in text:  # Python's own spelling, no number of a data file
            raise ValueError
        return float(text)
    except ValueError:
        raise ValueError(f"line {line}: {text[:40]!r} is not a number") from None


def _digits(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    out: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Read the cells between starts and ends into ``out``; gives the places of the others."""
    import numpy as np

    u = np.uint64
    eight = np.ndarray((len(data) - 7,), u, data, strides=(1,))  # the 8 bytes from each place
    negative = data[starts] == _MINUS
    length = ends - starts
    digits = length - negative
    # A word's first character is its lowest byte. What lies before the cell becomes "0".
    head = _since(eight[ends - 16], 16 - digits)
    tail = _since(eight[ends - 8], 8 - digits)
    # The point is taken out, and what is before it moves up by one character.
    point1, point2 = _point(head), _point(tail)
    in1, in2 = point1 != 0, point2 != 0
    closed = _without(tail, point2) | (head >> u(56))
    tail = np.where(in2, closed, tail)
    closed = np.where(in2, head << u(8), _without(head, point1)) | u(0x30)
    head = np.where(in1 | in2, closed, head)
    place = ((point1 | point2).astype(np.float64).view(np.int64) >> 52) - 1023 >> 3
    decimals = np.where(in2, 7 - place, np.where(in1, 15 - place, 0))
    whole = _number(head) * u(10**8) + _number(tail)
    value = whole / _powers()[decimals]
    np.copyto(out, np.where(negative, -value, value), casting="same_kind")
    empty = length == 0
    out[empty] = np.nan
    odd = _other_than_digits(head) | _other_than_digits(tail) | (in1 & in2)
    odd |= (digits > 16) | (digits - (in1 | in2) < 1) | (whole >= u(10**15))
    return np.flatnonzero(odd & ~empty)


def _since(words: Words, before: NDArray[np.int64]) -> Words:
    """The words with their first ``before`` characters (0 to 8 of them) replaced by "0"."""
    keep, zeros = _masks()
    at = before.clip(0, 8)
    return (words & keep[at]) | zeros[at]


def _point(words: Words) -> Words:
    """The highest bit of the first point's byte in each word; 0 where there is none."""
    import numpy as np

    u = np.uint64
    apart = words ^ u(0x2E2E2E2E2E2E2E2E)
    found = (apart - u(0x0101010101010101)) & ~apart & u(0x8080808080808080)
    lowest: Words = found & (~found + u(1))
    return lowest


def _without(words: Words, point: Words) -> Words:
    """The words without their point; the lowest byte is free."""
    import numpy as np

    u = np.uint64
    below = (point >> u(7)) - u(1)
    upto = below | (point << u(1)) - (point >> u(7))
    return (words & below) << u(8) | words & ~upto


def _other_than_digits(words: Words) -> NDArray[np.bool_]:
    import numpy as np

    u = np.uint64
    over, under = words + u(0x4646464646464646), words - u(0x3030303030303030)
    other: NDArray[np.bool_] = ((over | under) & u(0x8080808080808080)) != 0
    return other


def _number(words: Words) -> Words:
    """Eight digits as a number: pairs, then fours, then all."""
    import numpy as np

    u = np.uint64
    words = words - u(0x3030303030303030)
    words = words * u(10) + (words >> u(8))
    pairs = words & u(0x000000FF000000FF)
    others = (words >> u(16)) & u(0x000000FF000000FF)
    return (pairs * u(0x000F424000000064) + others * u(0x0000271000000001)) >> u(32)


@functools.cache
def _masks() -> tuple[Words, Words]:
    import numpy as np

    keep = [(1 << 64) - (1 << 8 * n) for n in range(9)]
    zeros = [0x3030303030303030 & ((1 << 8 * n) - 1) for n in range(9)]
    return np.array(keep, np.uint64), np.array(zeros, np.uint64)


@functools.cache
def _powers() -> NDArray[np.float64]:
    import numpy as np

    return np.array([10.0**n for n in range(16)])
