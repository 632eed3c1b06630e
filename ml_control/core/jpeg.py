"""Whether a JPEG is whole, and its size, by walking its markers."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from ml_control.errors import BadObject

START = b"\xff\xd8"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# Inside compressed data, FF00 is a data byte and FFD0-FFD7 are restart marks.
_ENDS = bytes(byte not in {0x00, *range(0xD0, 0xD8), 0xFF} for byte in range(256))
_SOS, _EOI = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def _markers(data: bytes, name: str) -> Iterator[tuple[int, int, int]]:
    """A JPEG's markers in order, with where each body begins and ends, up to the end marker."""
    at = 2
    while True:
        found = _MARKER.match(data, at)
        if found is None:
            cut = at + 2 > len(data)
            raise _bad(
                name, "is cut off: it has no JPEG end marker" if cut else "is a damaged JPEG"
            )
        marker, at = data[found.end() - 1], found.end()
        if marker == _EOI:
            yield marker, at, at
            return
        if marker in _ALONE:
            yield marker, at, at
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end < at + 2 or end > len(data):
            raise _bad(name, "is cut off inside a JPEG segment")
        yield marker, at + 2, end
        at = end
        if marker == _SOS:
            at = _behind_scan(data, at)


def _behind_scan(data: bytes, at: int) -> int:
    """Where compressed data that begins here ends: at the next marker, or with the file."""
    import numpy as np

    held = np.frombuffer(data, dtype=np.uint8)
    marks = (held[at:-1] == 0xFF).nonzero()[0]  # a search for two bytes at once is far slower
    ends = marks[np.frombuffer(_ENDS, dtype=bool)[held[at + 1 :][marks]]]
    return at + int(ends[0]) if len(ends) else len(data)


def size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height from the first frame header."""
    for marker, start, end in _markers(data, name):
        if marker in _FRAMES and end - start >= 5:
            height, width = struct.unpack(">HH", data[start + 1 : start + 5])
            return int(width), int(height)
    raise _bad(name, "is a JPEG without a picture")


def check(data: bytes, name: str) -> None:
    """Whole segments, some picture data, and the end marker."""
    marks = [marker for marker, _, _ in _markers(data, name)]
    if _SOS not in marks:
        raise _bad(name, "is a JPEG without picture data")


def _bad(name: str, reason: str) -> BadObject:
    return BadObject(name, reason, "replace it with a whole PNG or JPEG file")
