"""Rows of numbers as delimited text, read exactly or refused."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from ml_control.serving.refused import Refused, check_cells, check_finite, columns_refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DELIMITERS = ",;\t|"
_BOM = b"\xef\xbb\xbf"
# Spelled out because float() also takes '1_000' and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NAN = re.compile(r"[+-]?nan", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)


def parse_csv(body: bytes, num_features: int) -> NDArray[np.float32]:
    """Feature rows as float32 of shape (rows, num_features); an empty cell or ``nan`` is NaN.

    No header; the delimiter is the most frequent of ``, ; tab |`` in the first line; lines end
    with LF or CRLF. Raises ``Refused``: 204 for an empty body; 415 for a blank or ragged body, a
    header, infinity or anything else that is not a number; 400 when the rows have more or fewer
    columns than the model.
    """
    if not body:
        raise Refused(204, "")
    rows = _parse_plain(body, num_features)
    if rows is None:
        rows = _parse_any(body, num_features)
    check_finite(rows)
    return rows


def parse_number(cell: str, place: str) -> float:
    """One cell as a float. Raises ``Refused`` (415) naming the place when it is no number."""
    cell = cell.strip()
    if not cell:
        return float("nan")
    if _NUMBER.fullmatch(cell) or _NAN.fullmatch(cell):
        return float(cell)
    if _INFINITE.fullmatch(cell):
        raise Refused(
            415, f"{place} is infinite; send finite numbers, or an empty cell for a missing one"
        )
    shown = cell if len(cell) <= 40 else f"{cell[:40]}..."
    raise Refused(415, f"{place}: {shown!r} is not a number; send rows without a header")


def _parse_plain(body: bytes, num_features: int) -> NDArray[np.float32] | None:
    """What most bodies are, whole rows of plain numbers between commas, read by simdjson.

    None for anything else, wrong or merely unusual: :func:`_parse_any` reads or refuses it. The
    numbers of JSON are a part of ours and are read to the same bits. Brackets are looked for
    because nested arrays would be read as if they were flat.
    """
    import numpy as np

    body = body.rstrip(b"\r\n")
    rows = body.count(b"\n") + 1
    if num_features < 2 or b"[" in body or not _is_matrix(body, rows, num_features):
        return None
    try:
        # CR is white space in JSON, so CRLF needs no care.
        document = b"[%b]" % (body if rows == 1 else body.replace(b"\n", b","))
        numbers = _parser().parse(document).as_buffer(of_type="d")
    except (ValueError, TypeError, RuntimeError):  # the last for integers beyond 64 bits
        return None
    values = np.frombuffer(numbers, np.float64)
    if values.size != rows * num_features:
        return None
    with np.errstate(over="ignore"):
        return values.astype(np.float32).reshape(rows, num_features)


def _is_matrix(body: bytes, rows: int, width: int) -> bool:
    """Whether every line has exactly ``width`` cells between commas."""
    import numpy as np

    if rows == 1 or body.count(b",") != rows * (width - 1):
        return rows == 1 and body.count(b",") == width - 1
    text = np.frombuffer(body, np.uint8)
    ends = (text == ord(b",")) | (text == ord(b"\n"))
    # As many lines and commas as there must be: so the lines are equal if each ends in its place.
    return bool((text[np.flatnonzero(ends)[width - 1 :: width]] == ord(b"\n")).all())


@cache
def _parser() -> Any:
    import simdjson

    return simdjson.Parser()


def _parse_any(body: bytes, num_features: int) -> NDArray[np.float32]:
    import numpy as np

    body = body.removeprefix(_BOM)
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n")
    body = body.rstrip(b"\n")
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise Refused(
            415, f"line {line} has a byte that no number has; send rows without a header"
        ) from None
    if not text.strip(" \n\r"):  # tabs delimit: a row of them has empty cells
        raise Refused(415, "the body is blank; send at least one row of numbers")
    lines = text.split("\n")
    delimiter = max(DELIMITERS, key=lines[0].count)  # on a tie the first, so a comma
    _check_shape(lines, delimiter, num_features)
    check_cells(len(lines), num_features)
    cells = text.replace("\n", delimiter).split(delimiter)
    values = np.fromiter(
        (_cell(cell, index, num_features) for index, cell in enumerate(cells)),
        np.float64,
        len(cells),
    )
    with np.errstate(over="ignore"):
        return values.astype(np.float32).reshape(len(lines), num_features)


def _cell(cell: str, index: int, width: int) -> float:
    """One cell; its index in reading order only serves the message."""
    if _NUMBER.fullmatch(cell):
        return float(cell)
    return parse_number(cell, f"line {index // width + 1}, column {index % width + 1}")


def _check_shape(lines: list[str], delimiter: str, num_features: int) -> None:
    """Every line must have the model's number of cells, or the request is refused."""
    counts = [line.count(delimiter) for line in lines]
    width = counts[0] + 1
    if width == 1:  # here a blank line has the right number of cells, and is still no row
        counts = [0 if line.strip() else -1 for line in lines]
    if min(counts) != max(counts) or "" in lines:
        number = next(i for i, n in enumerate(counts) if n != counts[0] or not lines[i].strip())
        if not lines[number].strip():
            raise Refused(
                415, f"line {number + 1} is blank; write nan for a missing value, or leave it out"
            )
        raise Refused(
            415,
            f"line {number + 1} has {counts[number] + 1} columns and line 1 has {width}; "
            "send rows of equal length",
        )
    if width != num_features:
        # A header or a foreign delimiter is the likelier mistake, so it is named first.
        for index, cell in enumerate(lines[0].split(delimiter)):
            _cell(cell, index, width)
        raise columns_refused(width, num_features)
