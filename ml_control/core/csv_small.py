"""A small block of plain CSV in plain Python: a partition may be thousands of small files.

polars needs a millisecond for each, however few rows it has.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ml_control.core.cells import SPACE
from ml_control.core.plan import Plan

if TYPE_CHECKING:
    import polars as pl

SMALL = 16 << 10
# float() reads more than is a number of CSV; of these characters it reads the same.
_OF_NUMBERS = re.compile(r"[0-9.eE+-]*")


def read_small(block: bytes, names: list[str], plan: Plan) -> pl.DataFrame | None:
    """The rows of a block without quotes as *plan* wants them, or None for anything unusual.

    What is taken here is what polars and the careful ways would give. The caller has seen to it
    that no cell can be longer than ``MAX_CELL``.
    """
    import polars as pl

    if b'"' in block or b"\r" in block or b"\0" in block:
        return None
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError:
        return None
    if not lines[-1]:
        lines.pop()
    if not all(lines):
        return None
    rows = [line.split(",") for line in lines]
    if {len(row) for row in rows} != {len(names)}:
        return None
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    missing = frozenset(plan.missing)
    series = []
    for name in plan.wanted:
        cells = columns[name]
        if name in plan.numbers:
            numbers = _numbers(cells, missing)
            if numbers is None:
                return None
            series.append(pl.Series(name, numbers, dtype=pl.Float64))
        else:
            trimmed = [cell.strip(SPACE) for cell in cells]
            texts = [None if cell in missing else cell for cell in trimmed]
            series.append(pl.Series(name, texts, dtype=pl.String))
    return pl.DataFrame(series)


def _numbers(cells: tuple[str, ...], missing: frozenset[str]) -> list[float | None] | None:
    present = [None if cell in missing else cell for cell in cells]
    if not _OF_NUMBERS.fullmatch("".join(cell for cell in present if cell is not None)):
        return None
    try:
        numbers = [None if cell is None else float(cell) for cell in present]
    except ValueError:
        return None
    finite = all(number is None or math.isfinite(number) for number in numbers)
    return numbers if finite else None
