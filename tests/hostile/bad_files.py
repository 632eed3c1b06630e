"""The reviewed table of bad files: what it is, how it is made, and the refusal it must get."""

import gzip
import io
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


RECORD = b'{"age": 31, "city": "Rome", "bought": "yes"}\n'


def wide(columns: int) -> bytes:
    return b",".join(b"c%d" % i for i in range(columns)) + b"\n" + b"1," * (columns - 1) + b"1\n"


def parquet(**changes: object) -> bytes:
    import polars as pl

    columns = {"age": [31.0, 32.0], "city": ["Rome", "Bonn"], "bought": ["yes", "no"], **changes}
    buffer = io.BytesIO()
    pl.DataFrame({name: values for name, values in columns.items() if values is not None}
                 ).write_parquet(buffer)  # fmt: skip
    return buffer.getvalue()


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
    ("gzip bomb", lambda: gzip.compress(bytes(20_000_000), 1), None, None, "is gzip data"),
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
    ("dropped column", lambda: b"age,bought\n1,no\n", None, "city", "'city' is missing"),
    ("added column", lambda: b"age,city,bought,x\n1,a,no,2\n", None, "x", "unexpected column 'x'"),
    ("twice", lambda: b"age,age,city,bought\n1,1,a,no\n", None, "age", "is there twice"),
    ("look-alike", lambda: b"age,city,bought,A ge\n1,a,no,2\n", None, "A ge", "differs from 'age'"),
    ("no name", lambda: b"age,,city,bought\n1,1,a,no\n", None, "", "header column 2 has no name"),
    ("100,000 columns", lambda: wide(100_000), None, None, "100,000 columns; at most 10,000"),
    ("retyped column", lambda: HEAD + b"young,a,no\n", 1, "age", "'young' is not a finite number"),
    ("not a number", lambda: GOOD + b"3O,a,no\n", 2, "age", "'3O' is not a finite number"),
    ("thousands", lambda: GOOD + b'"1,000",a,no\n', 2, "age", "'1,000' is not a finite number"),
    ("infinite", lambda: GOOD + b"-inf,a,no\n", 2, "age", "'-inf' is not a finite number"),
    ("nan", lambda: GOOD + b"nan,a,no\n", 2, "age", "'nan' is not a finite number"),
    ("overflow", lambda: GOOD + b"1e999,a,no\n", 2, "age", "'1e999' is not a finite number"),
    ("no outcome", lambda: GOOD + b"3,a,\n4,b,?\n", 2, "bought", "the target (2 such rows)"),
    ("huge cell", lambda: GOOD + b'3,"' + b"x" * 200_000 + b'",no\n', 2, None, "field larger"),
    ("1 MB field", lambda: GOOD + b"3," + b"x" * 1_000_000 + b",no\n", 2, None, "field larger"),
]

# (what, builder, the rows that are read: age, city, bought)
ACCEPTED: list[tuple[str, Callable[[], bytes], list[tuple[float | None, str | None, str]]]] = [
    ("byte-order mark", lambda: b"\xef\xbb\xbf" + GOOD, [(31.0, "Rome", "yes")]),
    ("quoted comma", lambda: HEAD + b'31,"Rome, Italy",yes\n', [(31.0, "Rome, Italy", "yes")]),
    ("quoted newline", lambda: HEAD + b'31,"Ro\nme",yes\n', [(31.0, "Ro\nme", "yes")]),
    ("doubled quotes", lambda: HEAD + b'31,"""Rome""",yes\n', [(31.0, '"Rome"', "yes")]),
    ("reordered columns", lambda: b"bought,age,city\nyes,31,Rome\n", [(31.0, "Rome", "yes")]),
    ("spaces around names", lambda: b" age ,city , bought\n31,a,no\n", [(31.0, "a", "no")]),
    ("Windows line ends", lambda: GOOD.replace(b"\n", b"\r\n"), [(31.0, "Rome", "yes")]),
    ("no last line end", lambda: GOOD[:-1], [(31.0, "Rome", "yes")]),
    ("blank lines", lambda: HEAD + b"\n31,Rome,yes\n\n", [(31.0, "Rome", "yes")]),
    ("missing marks", lambda: HEAD + b"?, ,yes\n", [(None, None, "yes")]),
    ("emoji", lambda: HEAD + "31,\U0001f600,yes\n".encode(), [(31.0, "\U0001f600", "yes")]),
]

# Readable, and refused by the audit before it is published: (what, builder, check, reason).
AUDITED: list[tuple[str, Callable[[], bytes], str, str]] = [
    ("one class", lambda: HEAD + b"".join(b"%d,Rome,no\n" % i for i in range(20, 40)),
     "single_class", "only the class 'no' occurs"),
]  # fmt: skip

# As TABLES, of pipelines with ``format: parquet``.
PARQUET: list[tuple[str, Callable[[], bytes], int | None, str | None, str]] = [
    ("zero bytes", lambda: b"", None, None, "is empty (0 bytes)"),
    ("CSV", lambda: GOOD, None, None, "is not a Parquet file"),
    ("without its end", lambda: parquet()[:-20], None, None, "it has no Parquet footer"),
    ("only its ends", lambda: b"PAR1PAR1", None, None, "it has no Parquet footer"),
    ("cut in the middle", lambda: parquet()[:40] + b"PAR1", None, None, "damaged Parquet file"),
    ("no rows", lambda: parquet(age=[], city=[], bought=[]), None, None, "has columns and no rows"),
    ("dropped column", lambda: parquet(city=None), None, "city", "'city' is missing"),
    ("added column", lambda: parquet(x=[1, 2]), None, "x", "unexpected column 'x'"),
    ("retyped column", lambda: parquet(age=["3", "4"]), None, "age", "has the type String"),
    ("nested column", lambda: parquet(city=[["a"], ["b"]]), None, "city", "has the type List"),
    ("infinite", lambda: parquet(age=[1.0, float("inf")]), 2, "age", "is not a finite number"),
    ("1 MB text", lambda: parquet(city=["a", "x" * 1_000_000]), 2, None, "field larger"),
]

# As TABLES, of pipelines with ``format: jsonl``.
JSONL: list[tuple[str, Callable[[], bytes], int | None, str | None, str]] = [
    ("zero bytes", lambda: b"", None, None, "is empty (0 bytes)"),
    ("CSV", lambda: GOOD, 1, None, "row 1 is not JSON"),
    ("cut line", lambda: RECORD + RECORD[:-9], 2, None, "row 2 is not JSON"),
    ("array", lambda: RECORD + b"[1]\n", 2, None, "is not a JSON object but list"),
    ("key twice", lambda: b'{"age": 1, ' + RECORD[1:], 1, "age", "has the key 'age' twice"),
    ("NaN", lambda: RECORD.replace(b"31", b"NaN"), 1, None, "row 1 is not JSON"),
    ("latin-1", lambda: RECORD + b'{"city": "K\xf6ln"}\n', 2, None, "not UTF-8: byte 0xf6"),
    ("added key", lambda: RECORD + b'{"x": 1}\n', 2, "x", "'x'"),
    ("retyped value", lambda: RECORD.replace(b"31", b'"old"'), 1, "age", "not a finite number"),
    ("nested value", lambda: RECORD.replace(b"31", b"[31]"), 1, "age", "age"),
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
