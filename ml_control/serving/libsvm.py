"""Sparse rows in the libsvm form: ``label index:value index:value ...``, one row a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_control.serving.delimited import parse_number
from ml_control.serving.refused import Refused, check_cells, check_finite, columns_refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def parse_libsvm(body: bytes, num_features: int) -> NDArray[np.float32]:
    """Feature rows as float32 of shape (rows, num_features); a feature that is not named is NaN.

    Indices begin at 0, as the container reads them and trains on them. A leading label is read
    and dropped. Raises ``Refused``: 204 for an empty body; 415 for a blank body or line, a body
    that names no feature at all, an index named twice, infinity and whatever is not in this form;
    400 for an index that the model does not have; 413 for more cells than one request may have.
    """
    import numpy as np

    if not body:
        raise Refused(204, "")
    try:
        text = body.decode("ascii").rstrip()
    except UnicodeDecodeError as error:
        place = body.count(b"\n", 0, error.start) + 1
        raise Refused(
            415, f"line {place} has a byte that no libsvm row has; send CSV as text/csv"
        ) from None
    if not text:
        raise Refused(415, "the body is blank; send at least one row as 'label index:value ...'")
    lines = text.split("\n")
    check_cells(len(lines), num_features)
    if ":" not in text:
        raise Refused(
            415,
            "no row has an 'index:value', and a missing Content-Type means libsvm; "
            "send CSV without a header as text/csv",
        )
    rows = np.full((len(lines), num_features), np.nan, np.float32)
    with np.errstate(over="ignore"):
        for number, line in enumerate(lines, 1):
            for index, value in _features(line, number, num_features):
                rows[number - 1, index] = value
    check_finite(rows)
    return rows


def _features(line: str, number: int, num_features: int) -> list[tuple[int, float]]:
    """(index, value) of each feature in a line; the index is one of the model's."""
    tokens = line.split()
    if not tokens:
        raise Refused(415, f"line {number} is blank; write a label alone for a row of nothing")
    if ":" not in tokens[0]:
        parse_number(tokens.pop(0), f"line {number}, label")
    found = []
    for token in tokens:
        left, colon, right = token.partition(":")
        if not (colon and left.isdecimal() and right and len(left) <= 10):
            shown = token if len(token) <= 40 else f"{token[:40]}..."
            raise Refused(415, f"line {number}: {shown!r} is not 'index:value' of a feature")
        found.append((int(left), parse_number(right, f"line {number}, index {left}")))
    indices = [index for index, _ in found]
    if len(set(indices)) != len(indices):
        raise Refused(415, f"line {number} names an index twice; send each feature once")
    if indices and max(indices) >= num_features:
        raise columns_refused(max(indices) + 1, num_features)
    return found
