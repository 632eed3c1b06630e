"""What ``/invocations`` accepts and answers: the pure part of the endpoint server.

The rules are those of the SageMaker XGBoost container, with one deliberate difference: a row
with fewer columns than the model has is refused (400), where the container answers 200 with a
prediction made from features that were never sent.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CSV = "text/csv"
JSON = "application/json"
DELIMITERS = ",;\t|"
_BOM = b"\xef\xbb\xbf"
# Spelled out because float() also takes '1_000' and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NAN = re.compile(r"[+-]?nan", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
_PLAIN = b"0123456789+-.eE\n"  # with the delimiter: all that most bodies consist of


class Refused(Exception):
    """A request that is not answered with predictions; ``status`` is the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(status, reason)


def check_content_type(header: str | None) -> None:
    """Raise ``Refused`` (415) unless the header says CSV that this server reads.

    Parameters are checked too: ``charset`` must be UTF-8 or ASCII, and ``label_size``, where
    given, must be 1, as in the container (where it changes nothing about serving).
    """
    kind, parameters = _media_type(header or "")
    if kind != CSV:
        named = f"Content-Type {kind!r} is" if kind else "a missing Content-Type is"
        raise Refused(415, f"{named} not supported; send rows without a header as text/csv")
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        raise Refused(415, f"charset {charset!r} is not supported; send UTF-8")
    size = parameters.get("label_size", "1")
    if size != "1":
        raise Refused(415, f"label_size={size} is not supported; leave it out or send 1")


def choose_accept(header: str | None) -> str:
    """The answer's media type: ``text/csv`` (default) or ``application/json``.

    Raises ``Refused`` (406) when the header allows neither.
    """
    wanted: list[tuple[float, str]] = []
    for part in (header or "*/*").split(","):
        kind, parameters = _media_type(part)
        try:
            weight = float(parameters.get("q", "1"))
        except ValueError:
            weight = 0.0
        if kind and weight > 0:
            wanted.append((weight, kind))
    # sorted() is stable, so equal weights keep the order in which they were written.
    for _, kind in sorted(wanted, key=lambda item: -item[0]):
        if kind in {"*/*", "text/*", CSV}:
            return CSV
        if kind in {"application/*", JSON}:
            return JSON
    raise Refused(406, f"Accept {header!r} is not supported; ask for text/csv or application/json")


def parse_csv(body: bytes, num_features: int) -> NDArray[np.float32]:
    """Feature rows as float32 of shape (rows, num_features); an empty cell or ``nan`` is NaN.

    No header; the delimiter is the most frequent of ``, ; tab |`` in the first line; lines end
    with LF or CRLF. Raises ``Refused``: 204 for an empty body; 415 for a blank or ragged body, a
    header, infinity or anything else that is not a number; 400 when the rows have more or fewer
    columns than the model.
    """
    import numpy as np

    if not body:
        raise Refused(204, "")
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
    cells = text.replace("\n", delimiter).split(delimiter)
    plain = not body.translate(None, _PLAIN + delimiter.encode())
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells)) if plain else None
    except ValueError:  # an empty cell, or something like '1e': the careful way tells which
        values = None
    if values is None:
        values = np.fromiter(
            (_number(cell, index, num_features) for index, cell in enumerate(cells)),
            np.float64,
            len(cells),
        )
    with np.errstate(over="ignore"):
        rows = values.astype(np.float32).reshape(len(lines), num_features)
    infinite = np.isinf(rows)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise Refused(
            415,
            f"line {row + 1}, column {column + 1} is infinite as a 32-bit float; "
            "send finite numbers, or an empty cell for a missing one",
        )
    return rows


def render(predictions: NDArray[np.float32], accept: str | None = None) -> tuple[int, str, bytes]:
    """(status, content type, body) of predictions of shape (rows,) or (rows, classes).

    Each number is written in full, so that reading it back gives the same 32-bit float. Raises
    ``Refused``: 406 for an unsupported ``accept``, 500 when the model answered no finite number.
    """
    import numpy as np

    kind = choose_accept(accept)
    if not np.isfinite(predictions).all():
        raise Refused(500, "the model answered something that is not a finite number")
    scores = predictions.tolist()
    if kind == JSON:
        answer = {"predictions": [{"score": score} for score in scores]}
        return 200, JSON, json.dumps(answer, separators=(",", ":")).encode()
    if predictions.ndim > 1:
        body = "\n".join(",".join(map(repr, row)) for row in scores)
    else:
        body = "\n".join(map(repr, scores))
    return 200, f"{CSV}; charset=utf-8", body.encode() + b"\n"


def _media_type(header: str) -> tuple[str, dict[str, str]]:
    """The lower-case media type of a header, and its parameters."""
    kind, *rest = header.split(";")
    parameters = {}
    for part in rest:
        name, _, value = part.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    return kind.strip().lower(), parameters


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
            415, f"line {number + 1} has {counts[number] + 1} columns and line 1 has {width}"
        )
    if width != num_features:
        # A header or a foreign delimiter is the likelier mistake, so it is named first.
        for index, cell in enumerate(lines[0].split(delimiter)):
            _number(cell, index, width)
        raise Refused(
            400,
            f"the rows have {width} columns and the model has {num_features} features; "
            "send exactly the model's features, in its order and without the label",
        )


def _number(cell: str, index: int, width: int) -> float:
    """One cell as a float; the index in reading order only serves the message."""
    cell = cell.strip()
    if not cell:
        return float("nan")
    if _NUMBER.fullmatch(cell) or _NAN.fullmatch(cell):
        return float(cell)
    place = f"line {index // width + 1}, column {index % width + 1}"
    if _INFINITE.fullmatch(cell):
        raise Refused(
            415, f"{place} is infinite; send finite numbers, or an empty cell for a missing one"
        )
    shown = cell if len(cell) <= 40 else f"{cell[:40]}..."
    raise Refused(415, f"{place}: {shown!r} is not a number; send rows without a header")
