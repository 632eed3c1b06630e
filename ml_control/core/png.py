"""Whether a PNG is whole, and the same picture in a form that a decoder reads faster.

Most of a decoder's time goes into unpacking the pixels. Unpacking them here, with a library
made for speed, proves that they are all there, and they are handed on stored instead of packed.
"""

from __future__ import annotations

import struct
from typing import cast

from isal import isal_zlib

from ml_control.errors import BadObject

START = b"\x89PNG\r\n\x1a\n"
# Its stubs take the class for an instance.
_ERROR = cast("type[Exception]", isal_zlib.error)
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: x start, y start, x step, y step of each pass.
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_STEP = 1 << 20
_HELD = 32 << 20  # bytes of unpacked pixels up to which they are handed on
_STORED = 65_535  # bytes of a stored block, by the format


def whole(data: bytes, name: str) -> bytes:
    """*data*, or the same PNG with its pixels stored where they are not too many to hold.

    Raises ``BadObject`` for *name* unless every chunk's checksum is right, the end chunk is there
    and the pixel stream unpacks to as many bytes as the header promises.
    """
    promised = _promised(data, name)
    bodies: list[memoryview] = []
    first, behind, end = _chunks(data, name, bodies)
    if promised > _HELD:
        _count(bodies, promised, name)
        return data
    stream = isal_zlib.decompressobj()
    packed = bodies[0] if len(bodies) == 1 else b"".join(bodies)
    try:
        pixels = stream.decompress(packed, promised + 1) if packed else b""
        # The checksum behind the last byte may need one more call.
        more = stream.decompress(stream.unconsumed_tail, 1) if not stream.eof else b""
    except _ERROR as error:
        raise _bad(name, f"is damaged: {error}") from None
    _compare(len(pixels) + len(more), promised, name, ended=stream.eof)
    return b"".join((data[:first], _stored(pixels), data[behind:end]))


def _chunks(data: bytes, name: str, bodies: list[memoryview]) -> tuple[int, int, int]:
    """Where the pixel chunks begin and end and where the file ends; their bodies are added."""
    view = memoryview(data)
    at, first, behind = len(START), 0, 0
    while True:
        if at + 12 > len(data):
            raise _bad(name, "is cut off: it has no PNG end chunk")
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if end + 4 > len(data):
            raise _bad(name, f"is cut off inside a PNG chunk at offset {at}")
        if isal_zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise _bad(name, f"is damaged: a PNG checksum differs at offset {at}")
        kind = data[at + 4 : at + 8]
        if kind == b"IDAT":
            if behind not in {0, at}:
                raise _bad(name, f"is damaged: its pixels go on at offset {at}")
            first, behind = first or at, end + 4
            bodies.append(view[at + 8 : end])
        at = end + 4
        if kind == b"IEND":
            if not bodies:
                raise _bad(name, "is a PNG without pixels")
            return first, behind, at


def _count(bodies: list[memoryview], promised: int, name: str) -> None:
    """Unpack in bounded steps, holding nothing. Raises ``BadObject``."""
    stream = isal_zlib.decompressobj()
    seen = 0
    for body in bodies:
        rest: bytes | memoryview = body
        while not stream.eof:
            try:
                found = len(stream.decompress(rest, _STEP))
            except _ERROR as error:
                raise _bad(name, f"is damaged: {error}") from None
            rest = stream.unconsumed_tail
            seen += found
            if seen > promised:
                _compare(seen, promised, name, ended=False)
            if not rest and found < _STEP:
                break
    _compare(seen, promised, name, ended=stream.eof)


def _compare(seen: int, promised: int, name: str, *, ended: bool) -> None:
    if seen > promised:
        raise _bad(name, "unpacks to more pixels than its PNG header promises")
    if seen < promised or not ended:
        raise _bad(name, f"is cut off: {seen} of {promised} bytes of pixels are there")


def _stored(pixels: bytes) -> bytes:
    """One pixel chunk that holds *pixels* unpacked."""
    view = memoryview(pixels)
    pieces: list[bytes | memoryview] = [b"IDAT\x78\x01"]
    for start in range(0, len(view), _STORED):
        piece = view[start : start + _STORED]
        size = len(piece)
        last = start + size == len(view)
        pieces += [struct.pack("<BHH", last, size, size ^ 0xFFFF), piece]
    pieces.append(isal_zlib.adler32(pixels).to_bytes(4, "big"))
    body = b"".join(pieces)
    checksum = isal_zlib.crc32(body).to_bytes(4, "big")
    return b"".join(((len(body) - 4).to_bytes(4, "big"), body, checksum))


def _promised(data: bytes, name: str) -> int:
    """Bytes of the unpacked pixel stream, from the header."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if colour not in _SAMPLES or depth not in {1, 2, 4, 8, 16} or interlace not in {0, 1}:
        raise _bad(name, "is damaged: its PNG header is not valid")
    bits = _SAMPLES[colour] * depth
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return int(total)


def _bad(name: str, reason: str) -> BadObject:
    return BadObject(name, reason, "replace it with a whole PNG or JPEG file")
