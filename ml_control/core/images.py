"""Image bytes into pixels, or a refusal.

Size is read from the header by hand and wholeness is checked before any decoding: a small file
can claim a picture of many gigabytes, and OpenCV fills the lost part of a cut file with grey.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ml_control.errors import BadObject
from ml_control.spec import ImageShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PIXELS = 50_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
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
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_SOS, _EOI = 0xDA, 0xD9
# Inside compressed data, FF00 is a data byte and FFD0-FFD7 are restart marks.
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_STEP = 1 << 20
_COUNTED = 1 << 16  # up to so many bytes of pixels a PNG is unpacked to count them
_FLAGS = {
    ("grey", 1): "IMREAD_GRAYSCALE",
    ("grey", 2): "IMREAD_REDUCED_GRAYSCALE_2",
    ("grey", 4): "IMREAD_REDUCED_GRAYSCALE_4",
    ("grey", 8): "IMREAD_REDUCED_GRAYSCALE_8",
    ("colour", 1): "IMREAD_COLOR_RGB",
    ("colour", 2): "IMREAD_REDUCED_COLOR_2",
    ("colour", 4): "IMREAD_REDUCED_COLOR_4",
    ("colour", 8): "IMREAD_REDUCED_COLOR_8",
}


class AuditRow(NamedTuple):
    """What a data check may look at for one image, and the pixels that the model gets."""

    width: int  # as in the file, before resizing
    height: int
    brightness: float  # mean of the kept pixels, 0..255
    contrast: float  # their standard deviation
    pixels: bytes  # uint8, rows first, colour last


def probe(data: bytes, name: str = "image") -> tuple[str, int, int]:
    """Format (``png`` or ``jpeg``), width and height, from the header alone.

    Raises ``BadObject`` when it is neither, or larger than 50 megapixels.
    """
    if data.startswith(_PNG):
        if len(data) < 33 or data[12:16] != b"IHDR":
            raise _bad(name, "is cut off inside its PNG header")
        width, height = struct.unpack(">II", data[16:24])
        kind = "png"
    elif data.startswith(b"\xff\xd8"):
        width, height = _jpeg_size(data, name)
        kind = "jpeg"
    elif not data:
        raise _bad(name, "is empty (0 bytes)")
    else:
        raise _bad(name, "is neither PNG nor JPEG")
    if width == 0 or height == 0:
        raise _bad(name, f"claims {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise _bad(
            name, f"claims {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million"
        )
    return kind, width, height


def decode(data: bytes, shape: ImageShape, name: str) -> NDArray[np.uint8]:
    """Pixels as uint8, (height, width) for grey or (height, width, 3) RGB for colour.

    Orientation tags are applied, transparency is dropped, 16 bits become 8. A picture of
    another size is resized. Raises ``BadObject`` for *name* when the bytes are not a whole PNG
    or JPEG. Damage inside a JPEG's compressed data that leaves its markers in place cannot be
    told from a poor picture and is not found.
    """
    return _decoded(data, shape, name, *probe(data, name))


def _decoded(
    data: bytes, shape: ImageShape, name: str, kind: str, width: int, height: int
) -> NDArray[np.uint8]:
    import cv2
    import numpy as np

    (_check_png if kind == "png" else _check_jpeg)(data, name)
    part = _part(shape, width, height) if kind == "jpeg" else 1
    flag = getattr(cv2, _FLAGS[shape.mode, part])
    try:
        found = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag)
    except cv2.error as error:
        raise _bad(name, f"cannot be decoded: {error.err}") from None
    sides = (-(-height // part), -(-width // part))
    if found is None or found.shape[:2] not in {sides, sides[::-1]}:
        raise _bad(name, f"is a damaged {kind.upper()}")
    if part > 1 and shape.mode == "colour":
        found = found[..., ::-1]  # the decoder has no reduced flag in this order
    wanted = (shape.height, shape.width)
    if found.shape[:2] != wanted:
        shrinks = found.shape[0] >= wanted[0] and found.shape[1] >= wanted[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        found = cv2.resize(found, wanted[::-1], interpolation=how)
    return np.ascontiguousarray(found, dtype=np.uint8)


def _part(shape: ImageShape, width: int, height: int) -> int:
    """How many times smaller a JPEG may be decoded and still not be smaller than the shape.

    The decoder averages inside its blocks of 8 x 8 then, which is most of the shrinking and
    spares most of the work.
    """
    most = min(width, height) // max(shape.width, shape.height)
    return next(part for part in (8, 4, 2, 1) if part <= max(1, most))


def audit_row(data: bytes, shape: ImageShape, name: str) -> AuditRow:
    """Size, brightness, contrast and pixel bytes of one image. Raises as :func:`decode`."""
    kind, width, height = probe(data, name)
    pixels = _decoded(data, shape, name, kind, width, height)
    return AuditRow(width, height, float(pixels.mean()), float(pixels.std()), pixels.tobytes())


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG bytes of uint8 pixels, (height, width) grey or (height, width, 3) RGB."""
    import cv2

    colour = pixels.ndim > 2
    done, encoded = cv2.imencode(".png", pixels[..., ::-1] if colour else pixels)
    if not done:
        raise BadObject("pixels", f"cannot be written as PNG (shape {pixels.shape})")
    return bytes(encoded.tobytes())


def _bad(name: str, reason: str) -> BadObject:
    return BadObject(name, reason, "replace it with a whole PNG or JPEG file")


def _check_png(data: bytes, name: str) -> None:
    """Every chunk's CRC, the end chunk, and as many pixel bytes as the header promises.

    The decoder itself refuses a stream that is short or damaged. Only a small one is unpacked
    here too: that is cheap, and says what is wrong. A stream that is longer packed than it may
    be unpacked is refused without.
    """
    at, ended = len(_PNG), False
    promised = _png_size(data, name)
    pixels = _Inflated(name, promised) if promised <= _COUNTED else None
    packed = 0
    while not ended:
        if at + 12 > len(data):
            raise _bad(name, "is cut off: it has no PNG end chunk")
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            raise _bad(name, f"is cut off inside a PNG chunk at offset {at}")
        body = memoryview(data)[at + 8 : end]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end : end + 4], "big"):
            raise _bad(name, f"is damaged: a PNG checksum differs at offset {at}")
        if kind == b"IDAT":
            packed += length
            if pixels is not None:
                pixels.feed(body)
        ended = kind == b"IEND"
        at = end + 4
    if pixels is not None:
        pixels.finish()
    elif packed > promised + promised // 100 + 1024:  # stored blocks cost far less than this
        raise _bad(name, "unpacks to more pixels than its PNG header promises")


def _png_size(data: bytes, name: str) -> int:
    """Bytes of the unpacked pixel stream, from the header."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if colour not in _PNG_SAMPLES or depth not in {1, 2, 4, 8, 16} or interlace not in {0, 1}:
        raise _bad(name, "is damaged: its PNG header is not valid")
    bits = _PNG_SAMPLES[colour] * depth
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return int(total)


class _Inflated:
    """Unpacks a PNG's pixel stream in bounded steps and keeps only its length."""

    def __init__(self, name: str, promised: int) -> None:
        self._name = name
        self._promised = promised
        self._seen = 0
        self._stream = zlib.decompressobj()

    def feed(self, body: memoryview) -> None:
        """Take one chunk. Raises ``BadObject`` when it is damaged or unpacks to too much."""
        rest: bytes | memoryview = body
        while rest and not self._stream.eof:
            try:
                self._seen += len(self._stream.decompress(rest, _STEP))
            except zlib.error as error:
                raise _bad(self._name, f"is damaged: {error}") from None
            if self._seen > self._promised:
                raise _bad(self._name, "unpacks to more pixels than its PNG header promises")
            rest = self._stream.unconsumed_tail

    def finish(self) -> None:
        """Raise ``BadObject`` when pixels are missing."""
        while not self._stream.eof:
            more = self._stream.decompress(b"", _STEP)
            self._seen += len(more)
            if not more:
                break
        if self._seen != self._promised or not self._stream.eof:
            raise _bad(
                self._name,
                f"is cut off: {self._seen} of {self._promised} bytes of pixels are there",
            )


def _markers(data: bytes, name: str) -> Iterator[tuple[int, int, int]]:
    """A JPEG's markers in order, with where each body begins and ends, up to the end marker."""
    at = 2
    while True:
        found = _NEXT_MARKER.match(data, at)
        if found is None:
            cut = at + 2 > len(data)
            raise _bad(
                name, "is cut off: it has no JPEG end marker" if cut else "is a damaged JPEG"
            )
        marker, at = data[found.end() - 1], found.end()
        if marker == _EOI:
            yield marker, at, at
            return
        if marker in _JPEG_ALONE:
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
    end = data.find(b"\xff\xd9", at)
    # Nearly always there are only data bytes up to the end marker, which counting tells fast.
    if end >= 0 and data.count(b"\xff", at, end) == data.count(b"\xff\x00", at, end):
        return end
    after = _NEXT_MARKER.search(data, at)
    return after.start() if after else len(data)


def _jpeg_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height from the first frame header."""
    for marker, start, end in _markers(data, name):
        if marker in _JPEG_FRAMES and end - start >= 5:
            height, width = struct.unpack(">HH", data[start + 1 : start + 5])
            return int(width), int(height)
    raise _bad(name, "is a JPEG without a picture")


def _check_jpeg(data: bytes, name: str) -> None:
    """Whole segments, some picture data, and the end marker."""
    marks = [marker for marker, _, _ in _markers(data, name)]
    if _SOS not in marks:
        raise _bad(name, "is a JPEG without picture data")
