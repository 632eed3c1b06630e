"""A bounded sample of tables, as texts: what ``init`` proposes a pipeline from.

Of a large file only the beginning is read (CSV, JSON lines) or stretches spread over it
(Parquet), of many files some spread over them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.core.columns import DATE_NOTE
from ml_control.core.tabular import read_cells
from ml_control.errors import BadObject, InvalidSpec

if TYPE_CHECKING:
    import polars as pl

#: Suffixes of each format's files.
SUFFIXES: Mapping[str, frozenset[str]] = {
    "csv": frozenset({".csv"}),
    "parquet": frozenset({".parquet", ".pq"}),
    "jsonl": frozenset({".jsonl", ".ndjson"}),
}
MOST_ROWS = 200_000
MOST_FILES = 50
_MOST_BYTES = 64_000_000  # of one text file
_STRETCHES = 8
_SPACE = " \t\r\n\x0b\x0c\xa0"
_NESTED = "holds lists or objects; write their parts as columns of their own"
_BOOLEAN = "holds true and false; write 0 and 1 (a number) or two texts (a category) to use it"
_WRITTEN = "holds numbers as texts; convert it in the file to use them, or declare a category"
_MIXED = "mixes texts and numbers with a decimal point; write either"


@dataclass(frozen=True)
class Sample:
    """Rows of one or more files as texts; null where a format with types has no value."""

    format: str
    cells: pl.DataFrame
    files: int
    whole: bool  # every row of every file
    unusable: Mapping[str, str] = field(default_factory=dict)  # column -> why it is not in cells
    decimals: frozenset[str] = frozenset()  # numbers that a typed format has with a decimal point


def format_of(path: Path) -> str | None:
    """The format of a file of tables, by its suffix; None for another suffix."""
    return next((name for name, known in SUFFIXES.items() if path.suffix.lower() in known), None)


def sniffed(path: Path) -> str:
    """The format of a file by how it begins: CSV is what nothing else is."""
    start = _head(path, 4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"


def read_sample(format: str, files: list[Path]) -> Sample:
    """Rows from files of one format with the same columns.

    Raises ``InvalidSpec`` for a file that cannot be read or has other columns, and ``BadObject``
    for one that is damaged.
    """
    import polars as pl

    chosen = _spread(files, MOST_FILES)
    each = max(1, MOST_ROWS // len(chosen))
    read = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[format]
    parts = [read(path, each) for path in chosen]
    first = parts[0]
    for path, part in zip(chosen, parts, strict=True):
        # Keys of JSON objects come and go; a column of a table does not.
        if format != "jsonl" and set(_all(part)) != set(_all(first)):
            raise InvalidSpec(
                str(path), f"has other columns than {chosen[0].name}", "give files of one table"
            )
    unusable: dict[str, str] = {}
    for part in parts:
        unusable.update(part.unusable)
    names = dict.fromkeys(name for part in parts for name in part.cells.columns)
    cells = pl.concat([part.cells for part in parts], how="diagonal")
    return Sample(
        format=format,
        cells=cells.select(name for name in names if name not in unusable),
        files=len(chosen),
        whole=len(chosen) == len(files) and all(part.whole for part in parts),
        unusable=unusable,
        decimals=frozenset(name for part in parts for name in part.decimals) - set(unusable),
    )


def typed(cells: pl.DataFrame, columns: Mapping[str, bool], missing: Iterable[str]) -> pl.DataFrame:
    """Texts as the declared types: column -> whether it is a number. Marks become null."""
    import polars as pl

    marks = list(missing)
    text = {name: pl.when(~pl.col(name).is_in(marks)).then(pl.col(name)) for name in columns}
    return cells.select(
        (text[name].cast(pl.Float64) if number else text[name]).alias(name)
        for name, number in columns.items()
    )


def _all(part: Sample) -> list[str]:
    return [*part.cells.columns, *part.unusable]


def _spread(files: list[Path], most: int) -> list[Path]:
    """At most so many files at equal distances, the first and the last among them."""
    if len(files) <= most:
        return files
    return [files[round(place * (len(files) - 1) / (most - 1))] for place in range(most)]


def _head(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise InvalidSpec(
            str(path), f"cannot be read: {error.strerror}", "check the file's permissions"
        ) from None


def _lines(path: Path) -> tuple[bytes, bool]:
    """The beginning of a text file, up to the end of a line; and whether that is all of it."""
    data = _head(path, _MOST_BYTES + 1)
    if len(data) <= _MOST_BYTES:
        return data, True
    end = data.rfind(b"\n") + 1
    # A line break inside quotes ends no row; before one that ends a row, quotes are even.
    while end and data.count(b'"', 0, end) % 2:
        end = data.rfind(b"\n", 0, end - 1) + 1
    if not end:
        raise BadObject(
            path.name, f"has no end of a row within {_MOST_BYTES:,} bytes", "check its line ends"
        )
    return data[:end], False


def _csv(path: Path, most: int) -> Sample:
    data, whole = _lines(path)
    cells = read_cells(data, path.name)
    return Sample("csv", cells.head(most), 1, whole and cells.height <= most)


def _parquet(path: Path, most: int) -> Sample:
    import polars as pl

    _head(path, 4)  # polars tells an absent file from an unreadable one in many ways
    try:
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        rows = int(scan.select(pl.len()).collect().item())
        if rows <= most:
            frame = scan.collect()
        else:
            length = max(1, most // _STRETCHES)
            starts = [round(at * (rows - length) / (_STRETCHES - 1)) for at in range(_STRETCHES)]
            frame = pl.concat([scan.slice(start, length).collect() for start in starts])
    except pl.exceptions.PolarsError as error:
        raise BadObject(
            path.name,
            f"is not a whole Parquet file: {' '.join(str(error).split())[:200]}",
            "copy the file again",
        ) from None
    if not rows:
        raise BadObject(path.name, "has no rows", "put a file with rows in its place")
    unusable: dict[str, str] = {}
    texts: list[pl.Expr] = []
    decimals: set[str] = set()
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if dtype.is_temporal():
            unusable[name] = DATE_NOTE
        elif dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Null):
            unusable[name] = "has no value" if dtype == pl.Null else _NESTED
        elif dtype == pl.String and _numerals(frame[name]):
            unusable[name] = _WRITTEN  # to the reader a text is no number
        elif dtype.is_float() or dtype.is_decimal():
            decimals.add(name)
            texts.append(column.cast(pl.Float64).fill_nan(None).cast(pl.String))
        else:
            texts.append(column.cast(pl.String).str.strip_chars(_SPACE))
    return Sample("parquet", frame.select(texts), 1, rows <= most, unusable, frozenset(decimals))


def _numerals(texts: pl.Series) -> bool:
    """Whether every text of a column is a finite number."""
    import polars as pl

    numbers = texts.drop_nulls().str.strip_chars(_SPACE).cast(pl.Float64, strict=False)
    return len(numbers) > 0 and bool(numbers.is_finite().fill_null(value=False).all())


def _jsonl(path: Path, most: int) -> Sample:
    import orjson
    import polars as pl

    data, whole = _lines(path)
    columns: dict[str, list[Any]] = {}
    rows = 0
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        if rows == most:
            whole = False
            break
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _bad_line(path, number, f"is not JSON: {error.msg}") from None
        if not isinstance(record, dict):
            raise _bad_line(path, number, f"is not a JSON object but {type(record).__name__}")
        for key, value in record.items():
            values = columns.setdefault(key, [])
            values.extend([None] * (rows - len(values)))
            values.append(value)
        rows += 1
    if not rows:
        raise BadObject(path.name, "has no rows", "put a file with rows in its place")
    unusable: dict[str, str] = {}
    decimals: set[str] = set()
    texts: dict[str, list[str | None]] = {}
    for name, values in columns.items():
        values.extend([None] * (rows - len(values)))
        kinds = set(map(type, values)) - {type(None)}
        if not kinds <= {int, float, str}:
            unusable[name] = _BOOLEAN if kinds == {bool} else _NESTED
            continue
        if float in kinds:
            decimals.add(name)
        texts[name] = [None if value is None else _text(value) for value in values]
        if {float, str} <= kinds and not _numeric(texts[name]):
            unusable[name] = _MIXED
            del texts[name]
    cells = pl.DataFrame(texts, schema=dict.fromkeys(texts, pl.String))
    return Sample("jsonl", cells, 1, whole, unusable, frozenset(decimals))


def _bad_line(path: Path, number: int, reason: str) -> BadObject:
    return BadObject(
        path.name,
        f"line {number} {reason}",
        "write one JSON object a line",
        row=number,
    )


def _text(value: str | float) -> str:
    return value.strip(_SPACE) if isinstance(value, str) else json.dumps(value)


def _numeric(texts: Iterable[str | None]) -> bool:
    """Whether most of the texts are numbers: the others are marks then, not a mixture."""
    import polars as pl

    column = pl.Series(list(texts), dtype=pl.String).drop_nulls()
    return column.cast(pl.Float64, strict=False).null_count() < len(column) / 2
