"""Images: size from the header, wholeness before decoding, pixels as declared."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core import images
from ml_control.core import png as png_module
from ml_control.errors import BadObject
from ml_control.spec import ImageShape

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)
NOISE = images.encode_png(RNG.integers(0, 256, (24, 24), dtype=np.uint8))
JPEG = cv2.imencode(".jpg", cv2.resize(COLOUR, (64, 48)))[1].tobytes()


def shape(height: int, width: int, mode: str = "grey") -> ImageShape:
    return ImageShape(height=height, width=width, mode=mode)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, unpacked: bytes, *, interlace: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(unpacked)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_png_keeps_grey_and_colour_exactly():
    """Pixels written as PNG are read back as they were, colour as red, green, blue."""
    grey = images.decode(images.encode_png(GREY), shape(12, 9), "x")
    colour = images.decode(images.encode_png(COLOUR), shape(12, 9, "colour"), "x")

    np.testing.assert_array_equal(GREY, grey)
    np.testing.assert_array_equal(COLOUR, colour)


def test_probe_reads_format_and_size():
    """Format, width and height come from the header of both formats."""
    assert ("png", 9, 12) == images.probe(images.encode_png(GREY))
    assert ("jpeg", 64, 48) == images.probe(JPEG)


def test_interlaced_png_is_whole():
    """A PNG in Adam7 order passes the check of promised pixel bytes."""
    # 2 x 2: passes 1, 6 and 7 have one, one and two pixels, each row behind a filter byte.
    data = png(2, 2, b"\0\x01" + b"\0\x02" + b"\0\x03\x04", interlace=1)

    expected = np.array([[1, 2], [3, 4]], dtype=np.uint8)
    np.testing.assert_array_equal(expected, images.decode(data, shape(2, 2), "x"))


def test_another_size_is_resized_to_the_shape():
    """A picture of another size comes out in the declared shape, shrunk by averaging."""
    halves = np.zeros((8, 8), dtype=np.uint8)
    halves[:, ::2] = 200

    small = images.decode(images.encode_png(halves), shape(4, 4), "x")
    large = images.decode(images.encode_png(halves), shape(16, 12), "x")

    assert [100] == np.unique(small).tolist()
    assert (16, 12) == large.shape


def test_a_bomb_is_refused_by_its_header():
    """A small file that claims a gigantic picture is refused before it is unpacked."""
    bomb = png(30_000, 30_000, b"\0" * 10_000)

    with pytest.raises(BadObject, match="claims 30000 x 30000 pixels"):
        images.decode(bomb, shape(8, 8), "bomb.png")


def test_more_pixels_than_promised_are_refused():
    """A PNG whose stream unpacks to more than its header says is refused."""
    with pytest.raises(BadObject, match="unpacks to more pixels"):
        images.decode(png(2, 2, b"\0" * 5_000_000), shape(8, 8), "x.png")


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.sampled_from([NOISE, JPEG]))
def test_every_cut_is_found(share: float, data: bytes):
    """A file cut at any byte is refused and named, never decoded in part."""
    with pytest.raises(BadObject) as refused:
        images.decode(data[: int(share * len(data))], shape(8, 8), "cut.img")

    assert "cut.img" == refused.value.object


@settings(max_examples=60, deadline=None)
@given(st.integers(8, len(NOISE) - 1), st.integers(1, 255))
def test_every_changed_byte_of_a_png_is_found(place: int, change: int):
    """Any changed byte of a PNG is found by its checksums."""
    data = bytearray(NOISE)
    data[place] ^= change

    with pytest.raises(BadObject):
        images.decode(bytes(data), shape(24, 24), "x")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
def test_any_bytes_give_a_typed_refusal(data: bytes, start: bytes):
    """Whatever the bytes, the only error is BadObject."""
    with pytest.raises(BadObject):
        images.decode(start + data, shape(8, 8), "x")


def test_audit_row_describes_the_image():
    """The audit row has the file's own size and the kept pixels' statistics."""
    row = images.audit_row(images.encode_png(GREY), shape(12, 9), "x")

    assert (9, 12, GREY.tobytes()) == (row.width, row.height, row.pixels)
    assert pytest.approx(float(GREY.mean())) == row.brightness
    assert pytest.approx(float(GREY.std())) == row.contrast


@pytest.mark.parametrize("held", [1 << 25, 0])
@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (lambda raw: zlib.compress(raw + b"\0"), "unpacks to more pixels"),
        (lambda raw: zlib.compress(raw[:-1]), "cut off: 9999 of 10000"),
        (lambda raw: zlib.compress(raw)[:-2], "cut off: 10000 of 10000"),
        (lambda raw: zlib.compress(raw)[:-4] + b"\1\2\3\4", "is damaged"),
        (lambda raw: b"\0" * len(raw), "is damaged"),
        (lambda raw: b"", "is cut off: 0 of"),
    ],
)
def test_a_stream_that_is_not_the_promised_pixels_is_refused(held, stream, reason, monkeypatch):
    """Longer, shorter, unfinished, of a wrong checksum or none: refused at every size."""
    monkeypatch.setattr(png_module, "_HELD", held)
    head = struct.pack(">IIBBBBB", 99, 100, 8, 0, 0, 0, 0)
    bodies = stream(bytes(10_000))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    for start in range(0, len(bodies) or 1, 7):
        data += chunk(b"IDAT", bodies[start : start + 7])

    with pytest.raises(BadObject, match=reason):
        images.decode(data + chunk(b"IEND", b""), shape(8, 8), "x.png")


def test_pixels_in_two_places_are_refused():
    """Pixel chunks with another chunk between them are no whole picture."""
    packed = zlib.compress(b"\0\1" * 2)
    head = struct.pack(">IIBBBBB", 1, 2, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed[:3])
    data += chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", packed[3:]) + chunk(b"IEND", b"")

    with pytest.raises(BadObject, match="pixels go on"):
        images.decode(data, shape(8, 8), "x.png")


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 90),
    st.sampled_from(["grey", "colour"]),
    st.sampled_from([0, 1, 9]),
)
def test_png_pixels_are_those_of_the_plain_decoder(width, height, mode, level):
    """Every size and packing gives the pixels that decoding the file as it is gives."""
    rng = np.random.default_rng(width)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, level])[1]
    flag = cv2.IMREAD_GRAYSCALE if mode == "grey" else cv2.IMREAD_COLOR_RGB

    found = images.decode(data.tobytes(), shape(height, width, mode), "x.png")

    np.testing.assert_array_equal(cv2.imdecode(data, flag), found)
