"""Image bytes into pixels, or a refusal.

Size is read from the header by hand and wholeness is checked before any decoding: a small file
can claim a picture of many gigabytes, and OpenCV fills the lost part of a cut file with grey.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ml_control.core import jpeg, png
from ml_control.errors import BadObject
from ml_control.spec import ImageShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PIXELS = 50_000_000
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
    if data.startswith(png.START):
        if len(data) < 33 or data[12:16] != b"IHDR":
            raise _bad(name, "is cut off inside its PNG header")
        width, height = struct.unpack(">II", data[16:24])
        kind = "png"
    elif data.startswith(jpeg.START):
        width, height = jpeg.size(data, name)
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

    part = 1
    if kind == "png":
        data = png.whole(data, name)
    else:
        jpeg.check(data, name)
        part = _part(shape, width, height)
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
    import cv2

    kind, width, height = probe(data, name)
    pixels = _decoded(data, shape, name, kind, width, height)
    mean, deviation = cv2.meanStdDev(pixels.reshape(shape.height, -1))  # ten times numpy's speed
    return AuditRow(width, height, float(mean[0, 0]), float(deviation[0, 0]), pixels.tobytes())


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
