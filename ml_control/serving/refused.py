"""The one way in which a request is not answered with predictions."""

from __future__ import annotations

MAX_CELLS = 16 << 20
"""Most cells (rows x features) of one request: 64 MiB of float32, whatever a sparse body says."""


class Refused(Exception):
    """A request that is refused: ``status`` is the HTTP status, ``reason`` what to do about it."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(status, reason)


def check_cells(rows: int, num_features: int) -> None:
    """Raise ``Refused`` (413) before an array of this shape is made, if it would be too large.

    A dense body holds a byte or more for each cell; a sparse one may name millions in a few.
    """
    if rows * num_features > MAX_CELLS:
        raise Refused(
            413,
            f"{rows} rows of {num_features} features are more than {MAX_CELLS} cells; "
            "send fewer rows at once",
        )


def check_finite(rows: object, unit: str = "line") -> None:
    """Raise ``Refused`` (415) naming the first infinite cell of a float32 array (rows, columns)."""
    import numpy as np

    infinite = np.isinf(np.asarray(rows, dtype=np.float32))
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise Refused(
            415,
            f"{unit} {row + 1}, column {column + 1} is infinite as a 32-bit float; "
            "send finite numbers, or an empty cell for a missing one",
        )


def columns_refused(width: int, num_features: int) -> Refused:
    """The refusal (400) of rows that have another number of columns than the model."""
    return Refused(
        400,
        f"the rows have {width} columns and the model has {num_features} features; "
        "send exactly the model's features, in its order and without the label",
    )
