"""The reviewed table of bad JSON-lines and Parquet files, beside the one of CSV and images."""

import io
from collections.abc import Callable

import polars as pl

from ml_control.spec import PipelineSpec

_LINE = b'{"age": 31, "city": "Rome", "bought": "yes"}\n'


def spec(kind: str) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "shop",
            "source": {"format": kind, "partition": {"start": "2026-01-01"}},
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


def parquet(**columns: object) -> bytes:
    table = {"age": [31.0, 4.0], "city": ["a", "b"], "bought": ["yes", "no"], **columns}
    buffer = io.BytesIO()
    pl.DataFrame({k: v for k, v in table.items() if v is not None}).write_parquet(buffer)
    return buffer.getvalue()


def _line(text: str) -> Callable[[], bytes]:
    return lambda: _LINE + text.encode() + b"\n"


# (format, what, builder, row, column, part of the reason)
BAD: list[tuple[str, str, Callable[[], bytes], int | None, str | None, str]] = [
    ("jsonl", "empty", lambda: b"", None, None, "is empty (0 bytes)"),
    ("jsonl", "blank", lambda: b"\n \n", None, None, "only blank lines"),
    ("jsonl", "gzip", lambda: b"\x1f\x8b123456", None, None, "is gzip data"),
    ("jsonl", "utf-16", lambda: _LINE.decode().encode("utf-16"), None, None, "UTF-16"),
    ("jsonl", "broken utf-8", lambda: _LINE + b'{"city": "K\xf6ln"}\n', 2, None, "not UTF-8"),
    ("jsonl", "NUL", lambda: _LINE + b"\0\n", 2, None, "NUL byte"),
    ("jsonl", "broken line", _line('{"age": 3'), 2, None, "row 2 is not JSON"),
    ("jsonl", "NaN", _line('{"age": NaN, "bought": "no"}'), 2, None, "row 2 is not JSON"),
    ("jsonl", "1e999", _line('{"age": 1e999, "bought": "no"}'), 2, None, "infinity"),
    ("jsonl", "array", _line("[1]"), 2, None, "not a JSON object"),
    ("jsonl", "nested", _line('{"age": {"a": 1}, "bought": "no"}'), 2, "age", "not dict"),
    ("jsonl", "unknown key", _line('{"AGE": 3, "bought": "no"}'), 2, "AGE", "unknown key 'AGE'"),
    ("jsonl", "key twice", _line('{"age": 3, "age": 4, "bought": "no"}'), 2, "age", "twice"),
    ("jsonl", "escaped twice", _line(r'{"age": 3, "\u0061ge": 4}'), 2, "age", "twice"),
    ("jsonl", "bool", _line('{"age": true, "bought": "no"}'), 2, "age", "not bool"),
    ("jsonl", "text", _line('{"age": "old", "bought": "no"}'), 2, "age", "'old' is not a finite"),
    ("jsonl", "no outcome", _line('{"age": 3}'), 2, "bought", "the target (1 such rows)"),
    ("jsonl", "huge text", _line('{"city": "' + "x" * 1_000_000 + '"}'), 2, "city", "a text of"),
    ("parquet", "empty", lambda: b"", None, None, "is empty (0 bytes)"),
    ("parquet", "CSV", lambda: b"age,city,bought\n1,a,no\n", None, None, "is not a Parquet file"),
    ("parquet", "truncated", lambda: parquet()[:-20], None, None, "no Parquet footer"),
    ("parquet", "garbage", lambda: b"PAR1" + b"x" * 99 + b"PAR1", None, None, "damaged Parquet"),
    ("parquet", "no rows", lambda: parquet(age=[], city=[], bought=[]), None, None, "no rows"),
    ("parquet", "nested", lambda: parquet(city=[["a"], ["b"]]), None, "city", "List(String)"),
    ("parquet", "text", lambda: parquet(age=["1", "2"]), None, "age", "has the type String"),
    ("parquet", "float category", lambda: parquet(city=[1.0, 2.0]), None, "city", "Float64"),
    ("parquet", "infinite", lambda: parquet(age=[1.0, float("inf")]), 2, "age", "'inf' is not"),
    ("parquet", "dropped", lambda: parquet(city=None), None, "city", "'city' is missing"),
    ("parquet", "added", lambda: parquet(x=[1, 2]), None, "x", "unexpected column 'x'"),
    ("parquet", "no outcome", lambda: parquet(bought=["no", None]), 2, "bought", "the target (1"),
]
GOOD = {"jsonl": _LINE * 2 + _LINE.replace(b"yes", b"no"), "parquet": parquet()}
