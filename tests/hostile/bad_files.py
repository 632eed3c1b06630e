"""The reviewed table of bad files: what it is, how it is made, and the refusal it must get."""

import gzip
import struct
import zlib
from collections.abc import Callable

import numpy as np

from ml_control.core.images import encode_png
from ml_control.spec import PipelineSpec

SPEC = PipelineSpec.model_validate(
    {
        "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
        "columns": {
            "target": "bought",
            "task": "binary",
            "positive": "yes",
            "features": [
                {"name": "age", "type": "number"},
                {"name": "city", "type": "category"},
            ],
        },
    }
)
HEAD = b"age,city,bought\n"
GOOD = HEAD + b"31,Rome,yes\n"
PNG = encode_png(np.arange(64, dtype=np.uint8).reshape(8, 8))


def jpeg() -> bytes:
    import cv2

    picture = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    return PNG[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


# (what, builder, row, column, part of the reason)
TABLES: list[tuple[str, Callable[[], bytes], int | None, str | None, str]] = [
    ("zero bytes", lambda: b"", None, None, "is empty (0 bytes)"),
    ("blank lines", lambda: b" \n\n", None, None, "has only blank lines"),
    ("header only", lambda: HEAD, None, None, "a header and no rows"),
    ("quoted header only", lambda: b'"age","city","bought"\n', None, None, "and no rows"),
    ("gzip", lambda: gzip.compress(GOOD), None, None, "is gzip data"),
    ("zip", lambda: b"PK\x03\x04rest", None, None, "a zip archive or a spreadsheet"),
    ("parquet", lambda: b"PAR1rest", None, None, "is a Parquet file"),
    ("png", lambda: PNG, None, None, "is a PNG image"),
    ("utf-16", lambda: GOOD.decode().encode("utf-16"), None, None, "is UTF-16 text"),
    ("NUL byte", lambda: GOOD + b"3\0,a,no\n", None, None, "NUL byte at offset 29"),
    ("latin-1", lambda: GOOD + b"3,K\xf6ln,no\n", 2, None, "not UTF-8: byte 0xf6"),
    ("short row", lambda: GOOD + b"3,Bonn\n", 2, None, "row 2 has 2 cells, the header has 3"),
    ("long row", lambda: GOOD + b"3,a,no,x\n", 2, None, "row 2 has 4 cells"),
    ("short and long", lambda: HEAD + b"1,a\n1,a,no,x\n", 1, None, "row 1 has 2 cells"),
    ("quoted short row", lambda: GOOD + b'3,"Bonn"\n', 2, None, "row 2 has 2 cells"),
    ("open quote", lambda: GOOD + b'3,"Bonn,no\n', 2, None, "row 2 is not CSV"),
    ("text behind quote", lambda: GOOD + b'3,"a"b,no\n', 2, None, "row 2 is not CSV"),
    ("semicolons", lambda: GOOD.replace(b",", b";"), None, "age", "'age' is missing"),
    ("no target", lambda: b"age,city\n1,a\n", None, "bought", "'bought' is missing"),
    ("case", lambda: b"Age,city,bought\n1,a,no\n", None, "age", "the header has 'Age'"),
    ("extra", lambda: b"age,city,bought,x\n1,a,no,2\n", None, "x", "unexpected column 'x'"),
    ("twice", lambda: b"age,age,city,bought\n1,1,a,no\n", None, "age", "is there twice"),
    ("look-alike", lambda: b"age,city,bought,A ge\n1,a,no,2\n", None, "A ge", "differs from 'age'"),
    ("no name", lambda: b"age,,city,bought\n1,1,a,no\n", None, "", "header column 2 has no name"),
    ("not a number", lambda: GOOD + b"3O,a,no\n", 2, "age", "'3O' is not a finite number"),
    ("thousands", lambda: GOOD + b'"1,000",a,no\n', 2, "age", "'1,000' is not a finite number"),
    ("infinite", lambda: GOOD + b"-inf,a,no\n", 2, "age", "'-inf' is not a finite number"),
    ("nan", lambda: GOOD + b"nan,a,no\n", 2, "age", "'nan' is not a finite number"),
    ("overflow", lambda: GOOD + b"1e999,a,no\n", 2, "age", "'1e999' is not a finite number"),
    ("no outcome", lambda: GOOD + b"3,a,\n4,b,?\n", 2, "bought", "the target (2 such rows)"),
    ("huge cell", lambda: GOOD + b'3,"' + b"x" * 200_000 + b'",no\n', 2, None, "field larger"),
]

IMAGES: list[tuple[str, Callable[[], bytes], str]] = [
    ("zero bytes", lambda: b"", "is empty (0 bytes)"),
    ("text", lambda: GOOD, "is neither PNG nor JPEG"),
    ("GIF", lambda: b"GIF89a" + bytes(40), "is neither PNG nor JPEG"),
    ("PNG cut in its header", lambda: PNG[:20], "is cut off inside its PNG header"),
    ("PNG without its end", lambda: PNG[:-12], "it has no PNG end chunk"),
    ("PNG cut in its pixels", lambda: PNG[:50], "is cut off inside a PNG chunk"),
    ("PNG with a changed byte", lambda: PNG[:45] + b"\x99" + PNG[46:], "is damaged"),
    ("bomb", bomb, "claims 20000 x 20000 pixels; at most 50 million"),
    ("JPEG cut in its pixels", lambda: jpeg()[:-40], "it has no JPEG end marker"),
    ("JPEG cut in a segment", lambda: jpeg()[:40], "is cut off inside a JPEG segment"),
    ("JPEG without a picture", lambda: b"\xff\xd8\xff\xd9", "is a JPEG without a picture"),
    ("PNG called JPEG", lambda: b"\xff\xd8" + PNG, "is a damaged JPEG"),
]
