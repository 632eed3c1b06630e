"""CSV bytes and JSON records into one typed table, or a refusal that names the row and column.

Cells are texts until the pipeline file says otherwise: a column is read as the type that is
declared for it and is never guessed, so the same bytes always give the same table. Rows are
numbered from 1, without the header and without blank lines.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

# Python and polars disagree on what whitespace is, so both are told.
_SPACE = " \t\r\n\x0b\x0c\xa0"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CHUNK_ROWS = 50_000
_SHOWN = 40
_MAGIC = {
    b"\x1f\x8b": "gzip data",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
}


def read_csv(
    data: bytes, spec: PipelineSpec, name: str, *, require_target: bool = True
) -> pl.DataFrame:
    """The declared features in the pipeline file's order, then the target.

    Header names are matched exactly after trimming, in any order. Cells are trimmed and the
    texts in ``source.missing`` become null. Numbers are Float64, categories String; the target
    is String, or Float64 for regression. Columns under ``columns.ignore`` are dropped.
    With ``require_target=False`` the target may be absent, or null in some rows.

    Raises ``BadObject`` for *name*, with ``row`` and ``column`` where there is one.
    """
    cells = read_cells(data, name)
    columns = spec.columns
    wanted = [feature.name for feature in columns.features]
    if require_target or columns.target in cells.columns:
        wanted.append(columns.target)
    _check_columns(cells.columns, wanted, {*columns.ignore, columns.target}, name)
    missing = list(spec.source.missing)
    numbers = {feature.name for feature in columns.features if feature.type == "number"}
    if columns.task == "regression":
        numbers.add(columns.target)
    typed = [_typed(cells[column], missing, name, number=column in numbers) for column in wanted]
    if require_target:
        _refuse_missing_target(typed[-1], name)
    return cells.select(wanted).with_columns(typed)


def records_to_frame(records: Sequence[Mapping[str, Any]], spec: PipelineSpec) -> pl.DataFrame:
    """JSON records as the table that :func:`read_csv` would give for the same values.

    A key that is left out, null or one of ``source.missing`` is missing; the target and the
    ignored columns may be there and are dropped. Raises ``BadObject`` (``row``, ``column``)
    for an unknown key or a value of the wrong type.
    """
    import polars as pl

    missing = frozenset(spec.source.missing)
    features = spec.columns.features
    known = {feature.name for feature in features}
    spare = {*spec.columns.ignore, spec.columns.target}
    for row, record in enumerate(records, start=1):
        refuse_unknown_keys(record, known, spare, row)
    series = []
    for feature in features:
        read = number_cell if feature.type == "number" else category_cell
        kind = pl.Float64() if feature.type == "number" else pl.String()
        values = []
        for row, record in enumerate(records, start=1):
            try:
                values.append(read(record.get(feature.name), missing))
            except ValueError as error:
                raise BadObject(
                    f"record {row}", f"{feature.name}: {error}", row=row, column=feature.name
                ) from None
        series.append(pl.Series(feature.name, values, dtype=kind))
    return pl.DataFrame(series)


def refuse_unknown_keys(
    record: Mapping[str, Any], known: Iterable[str], spare: Iterable[str], row: int = 1
) -> None:
    """Raise ``BadObject`` when a record has a key that is neither a feature nor spare."""
    for key in record:
        if key not in known and key not in spare:
            hint = _look_alike(str(key), known)
            raise BadObject(
                f"record {row}",
                f"unknown key {str(key)!r}"
                + (f"; {hint!r} differs only in letter case or spaces" if hint else ""),
                "send the model's columns: " + ", ".join(list(known)[:12]),
                row=row,
                column=str(key),
            )


def number_cell(value: Any, missing: frozenset[str]) -> float | None:
    """One number cell, from a JSON value or a text; None when missing.

    Raises ``ValueError`` with the reason when it is not a finite number.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip(_SPACE)
        if text in missing:
            return None
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{_quote(text)} is not a finite number")
        number = float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    else:
        # One kind of error for every unusable cell, so that callers catch one.
        raise ValueError(f"a number is needed, not {type(value).__name__}")  # noqa: TRY004
    if not math.isfinite(number):
        raise ValueError(f"{_quote(value)} is not a finite number")
    return number


def category_cell(value: Any, missing: frozenset[str]) -> str | None:
    """One category cell, from a JSON value or a text; None when missing.

    An integer is its decimal text. Raises ``ValueError`` for anything else: how true or 1.0
    was written in the training data cannot be known.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 - one kind of error for every unusable cell
            f"a category is a text, as written in the data, not {type(value).__name__}"
        )
    text = value.strip(_SPACE)
    return None if text in missing else text


def read_cells(data: bytes, name: str) -> pl.DataFrame:
    """The cells of a CSV as trimmed texts, under their trimmed header names.

    Accepts a byte-order mark, any line ending, quoted commas and line breaks, and blank lines.
    Raises ``BadObject`` for anything that is not rectangular UTF-8 CSV with distinct header
    names and at least one row.
    """
    import polars as pl

    text = _text(data, name)
    frame = _quoted(text, name) if '"' in text else _plain(text, name)
    if frame.height == 0:
        raise BadObject(name, "has a header and no rows", "put a file with rows in its place")
    return frame.with_columns(pl.all().str.strip_chars(_SPACE))


def _text(data: bytes, name: str) -> str:
    """The decoded text, or the reason why it is none."""
    if not data:
        raise BadObject(name, "is empty (0 bytes)", "copy the file again")
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise BadObject(name, f"is {what}, not CSV text", "unpack or export it as CSV")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadObject(name, "is UTF-16 text", "save it as UTF-8")
    if (at := data.find(b"\0")) >= 0:
        raise BadObject(name, f"has a NUL byte at offset {at}", "save it as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n")
        raise BadObject(
            name,
            f"is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            "save it as UTF-8",
            **({"row": row} if row else {}),
        ) from None
    if not text.strip(_SPACE):
        raise BadObject(name, "has only blank lines", "copy the file again")
    return text


def _plain(text: str, name: str) -> pl.DataFrame:
    """CSV without any quotes: every comma separates, so polars can split it at full speed."""
    import polars as pl

    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    while "\n\n" in text:
        text = text.replace("\n\n", "\n")
    text = text.strip("\n")
    head, _, body = text.partition("\n")
    names = _header(head.split(","), name)
    if not body:
        return pl.DataFrame(
            {column: [] for column in names}, schema=dict.fromkeys(names, pl.String)
        )
    raw = body.encode()
    _refuse_ragged(raw, len(names), name)
    frame = pl.read_csv(raw, has_header=False, infer_schema=False, quote_char=None)
    frame.columns = names
    # Rows are known to be whole here, so a null can only be an empty cell.
    return frame.fill_null("")


def _refuse_ragged(raw: bytes, width: int, name: str) -> None:
    """polars silently fills short rows, so the commas of each line are counted first."""
    import numpy as np

    units = np.frombuffer(raw, dtype=np.uint8)
    ends = np.append(np.flatnonzero(units == ord("\n")), len(units))
    before = np.searchsorted(np.flatnonzero(units == ord(",")), ends)
    counts = np.diff(before, prepend=0) + 1
    wrong = np.flatnonzero(counts != width)
    if len(wrong):
        row = int(wrong[0])
        raise _ragged(name, row + 1, int(counts[row]), width)


def _quoted(text: str, name: str) -> pl.DataFrame:
    """CSV with quotes, by the standard library's strict reader, in chunks of rows."""
    import polars as pl

    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    names: list[str] = []
    chunks: list[pl.DataFrame] = []
    rows: list[list[str]] = []
    seen = 0

    def flush() -> None:
        table = list(zip(*rows, strict=True)) or [()] * len(names)
        chunks.append(
            pl.DataFrame(
                [pl.Series(n, v, dtype=pl.String) for n, v in zip(names, table, strict=True)]
            )
        )
        rows.clear()

    try:
        for cells in reader:
            if not cells:
                continue
            if not names:
                names = _header(cells, name)
                continue
            seen += 1
            if len(cells) != len(names):
                raise _ragged(name, seen, len(cells), len(names))
            rows.append(cells)
            if len(rows) >= _CHUNK_ROWS:
                flush()
    except csv.Error as error:
        raise BadObject(
            name,
            f"row {seen + 1} is not CSV: {error} (line {reader.line_num})",
            "write quotes inside a quoted cell twice, and close every quoted cell",
            row=seen + 1,
        ) from None
    flush()
    return pl.concat(chunks)


def _ragged(name: str, row: int, cells: int, width: int) -> BadObject:
    return BadObject(
        name,
        f"row {row} has {cells} cells, the header has {width}",
        "quote cells that contain a comma, and write every cell",
        row=row,
    )


def _header(cells: Sequence[str], name: str) -> list[str]:
    """Trimmed, distinct, non-empty names."""
    names = [cell.strip(_SPACE) for cell in cells]
    seen: dict[str, str] = {}
    for position, column in enumerate(names, start=1):
        if not column:
            raise BadObject(
                name, f"header column {position} has no name", "name every column", column=column
            )
        twin = seen.get(_folded(column))
        if twin is not None:
            how = (
                "is there twice"
                if twin == column
                else f"differs from {twin!r} only in letter case or spaces"
            )
            raise BadObject(
                name, f"header column {column!r} {how}", "keep one of the two", column=column
            )
        seen[_folded(column)] = column
    return names


def _check_columns(found: Sequence[str], wanted: Sequence[str], spare: set[str], name: str) -> None:
    """Every wanted column is there, and nothing that is neither wanted nor spare."""
    for column in wanted:
        if column not in found:
            twin = _look_alike(column, found)
            raise BadObject(
                name,
                f"column {column!r} is missing"
                + (
                    f"; the header has {twin!r}, which differs in letter case or spaces"
                    if twin
                    else ""
                ),
                "the header has: " + ", ".join(found[:20]),
                column=column,
            )
    for column in found:
        if column not in wanted and column not in spare:
            raise BadObject(
                name,
                f"unexpected column {column!r}",
                "declare it under columns.features or columns.ignore",
                column=column,
            )


def _typed(cells: pl.Series, missing: list[str], name: str, *, number: bool) -> pl.Series:
    """Cells with missing marks as null, as Float64 or String."""
    import polars as pl

    column = cells.name
    texts = cells.to_frame().select(
        pl.when(pl.col(column).is_in(missing)).then(None).otherwise(pl.col(column)).alias(column)
    )[column]
    if not number:
        return texts
    values = texts.cast(pl.Float64, strict=False)
    wrong = (texts.is_not_null() & ~values.is_finite().fill_null(value=False)).arg_true()
    if len(wrong):
        row = int(wrong[0])
        raise BadObject(
            name,
            f"row {row + 1}, column {column!r}: {_quote(texts[row])} is not a finite number",
            "correct the cell, or name the text under source.missing",
            row=row + 1,
            column=column,
        )
    return values


def _refuse_missing_target(target: pl.Series, name: str) -> None:
    gaps = target.is_null().arg_true()
    if len(gaps):
        raise BadObject(
            name,
            f"row {int(gaps[0]) + 1} has no {target.name!r}, the target ({len(gaps)} such rows)",
            "leave out rows whose outcome is not known yet",
            row=int(gaps[0]) + 1,
            column=target.name,
        )


def _folded(column: str) -> str:
    return "".join(column.split()).casefold()


def _look_alike(column: str, others: Iterable[str]) -> str | None:
    return next((other for other in others if _folded(other) == _folded(column)), None)


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
