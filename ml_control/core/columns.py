"""What a sample shows of one column, and what a pipeline should make of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

MARKS = ("", "NA", "N/A", "n/a", "#N/A", "?", "null", "NULL", "None", "nan", "NaN", "-", "--")
_SIGNED = re.compile(
    r"(^|_)(temp|temperature|delta|diff|difference|change|balance|profit|return|score|lat|lon|lng)"
)
_IDENTIFIER = re.compile(r"(^|[_\s.-])(id|uuid|guid|key|index|rownum|row)($|[_\s.-])|^unnamed")
_REFERENCE = re.compile(r"(^|[_\s.-])(id|uuid|guid)$")
_CODE = re.compile(r"(^|[_\s.-])(id|code|zip|zipcode|postcode|postal_code|plz)$")
_DATE = (
    r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d{1,2}:\d{2}.*)?$"
    r"|^\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ]\d{1,2}:\d{2}.*)?$"
)
_TIME_NAME = re.compile(r"(^|_)(date|time|timestamp|datetime|epoch|ts)($|_)|_at$|_on$")
# Seconds and milliseconds from 2001 to 2100, and days written as 20260131.
_TIMES = ((978_307_200, 4_102_444_800), (978_307_200_000, 4_102_444_800_000), (19000101, 21001231))
DATE_NOTE = (
    "a date or time; if it matters, send a number derived from it (the month, days since), "
    "and declare that as a feature"
)
# Where nature sets both ends; taken only when the whole sample lies inside.
_RANGES = (
    (re.compile(r"(^|_)lat(itude)?$"), -90.0, 90.0),
    (re.compile(r"(^|_)(lon|lng|long|longitude)$"), -180.0, 180.0),
    (re.compile(r"^age(_years)?$"), 0.0, 120.0),
    (re.compile(r"(^|_)(pct|percent|percentage)$"), 0.0, 100.0),
)
_MOST_CODES = 12
_MANY_LEVELS = 1000
_STRANGE_TEXTS = 3  # so many different texts among numbers are marks, more are a mixture
_STRANGE_SHARE = 0.5


@dataclass(frozen=True)
class Column:
    """What the sample shows of one column."""

    name: str
    rows: int
    present: int
    distinct: int
    numbers: pl.Series | None  # the values, when all of them are numbers
    dates: bool
    padded: bool  # numbers written with leading zeros, as codes are

    @property
    def whole(self) -> bool:
        """All values are whole numbers."""
        return self.numbers is not None and bool((self.numbers == self.numbers.round()).all())

    @property
    def words(self) -> str:
        """The name in lower case, with ``customerId`` as ``customer_id``."""
        return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", self.name).lower()

    @property
    def extent(self) -> tuple[float, float]:
        """Smallest and largest value of a column of numbers that has one."""
        if self.numbers is None:
            raise ValueError(f"{self.name} has no numbers")
        values = self.numbers.to_numpy()
        return float(values.min()), float(values.max())


def missing_marks(cells: pl.DataFrame, target: str) -> tuple[list[str], str]:
    """The texts that mean a missing value, the empty one first, and a note on them.

    The well-known marks that occur, and any text that stands among the numbers of a column that
    has nothing else. The target's own texts are no marks.
    """
    others = cells.drop(target)
    known = [
        mark for mark in MARKS[1:] if any((others[name] == mark).any() for name in others.columns)
    ]
    strange: dict[str, str] = {}
    for name in others.columns:
        for text in _among_numbers(others[name], ["", *known]):
            strange.setdefault(text, name)
    seen = f"{', '.join(map(repr, known))} occur" if known else "no other well-known mark occurs"
    note = f"in the sample, {seen}"
    for text, name in strange.items():
        note += f"; {text!r} stands among the numbers of {name}"
    return ["", *known, *strange], note


def _among_numbers(cells: pl.Series, missing: list[str]) -> list[str]:
    """The few texts of a column that has numbers otherwise."""
    import polars as pl

    present = cells.drop_nulls()
    present = present.filter(~present.is_in(missing))
    if not len(present):
        return []
    wrong = present.filter(
        ~present.cast(pl.Float64, strict=False).is_finite().fill_null(value=False)
    )
    different = wrong.unique().sort().to_list()
    few = 0 < len(different) <= _STRANGE_TEXTS and len(wrong) < _STRANGE_SHARE * len(present)
    numbers = present.len() - len(wrong)
    return different if few and numbers >= 10 else []


def look(cells: pl.Series, missing: list[str]) -> Column:
    """What one column of texts (or nulls) shows."""
    import polars as pl

    present = cells.drop_nulls()
    present = present.filter(~present.is_in(missing))
    numbers = present.cast(pl.Float64, strict=False)
    usable = len(present) > 0 and bool(numbers.is_finite().fill_null(value=False).all())
    return Column(
        name=cells.name,
        rows=len(cells),
        present=len(present),
        distinct=present.n_unique(),
        numbers=numbers if usable else None,
        dates=len(present) > 0 and bool(present.str.contains(_DATE).all()),
        padded=usable and bool(present.str.contains(r"^0\d").any()),
    )


def useless(column: Column) -> str | None:
    """Why a column cannot help a model, if so."""
    if column.present == 0:
        return "has no value in the sample"
    if column.dates or _is_time(column):
        return DATE_NOTE
    if column.distinct == 1 and column.present == column.rows and column.rows > 1:
        return "has the same value in every row of the sample"
    every = column.distinct == column.present
    discrete = column.whole or column.numbers is None
    if every and column.rows > 1 and discrete and _IDENTIFIER.search(column.words):
        return "looks like an identifier: a different value in every row"
    if discrete and _REFERENCE.search(column.words) and column.distinct > column.present // 2:
        return f"looks like an identifier: {column.distinct} different values"
    if every and column.whole and column.rows >= 20:
        low, high = column.extent
        if low in (0, 1) and high - low + 1 == column.present:
            return "counts the rows: every whole number once"
    if column.numbers is None and every and column.rows >= 10:
        return "a different text in every row"
    if column.numbers is None and column.distinct > max(100, column.present // 2):
        return f"looks like free text: {column.distinct} different values"
    return None


def _is_time(column: Column) -> bool:
    """Whole numbers that are dates or clock times, by their size and their column's name."""
    if not column.whole or not _TIME_NAME.search(column.words):
        return False
    low, high = column.extent
    return any(least <= low and high <= most for least, most in _TIMES)


def feature(column: Column, *, decimals: bool = False) -> tuple[dict[str, Any], str]:
    """The column as a feature, and a note. *decimals*: its numbers cannot be read as codes."""
    name = column.name
    if column.numbers is None:
        note = f"{column.distinct} levels: encoded as their rank by frequency"
        return {"name": name, "type": "category"}, note if column.distinct > _MANY_LEVELS else ""
    if column.padded:
        return {"name": name, "type": "category"}, "numbers with leading zeros are codes"
    if column.whole and not decimals and _CODE.search(column.words):
        return {
            "name": name,
            "type": "category",
        }, "numbers that name something, by the column's name"
    found: dict[str, Any] = {"name": name, "type": "number"}
    low, high = column.extent
    few = column.whole and 2 <= column.distinct <= _MOST_CODES
    codes = few and column.rows >= 5 * column.distinct and not decimals
    note = f"{column.distinct} whole numbers; make it a category if they are codes" if codes else ""
    for pattern, least, most in _RANGES:
        if pattern.search(column.words) and least <= low and high <= most:
            return {**found, "min": least, "max": most}, ""
    if low >= 0 and not _SIGNED.search(column.words):
        return {**found, "min": 0.0}, note
    return found, note
