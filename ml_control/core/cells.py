"""One cell: a text or a JSON value as the number or the category that it stands for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_control.errors import BadObject

# Python and polars disagree on what whitespace is, so both are told.
SPACE = " \t\r\n\x0b\x0c\xa0"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SHOWN = 40


def number_cell(value: Any, missing: frozenset[str]) -> float | None:
    """One number cell, from a JSON value or a text; None when missing.

    Raises ``ValueError`` with the reason when it is not a finite number.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip(SPACE)
        if text in missing:
            return None
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{quote(text)} is not a finite number")
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
        raise ValueError(f"{quote(value)} is not a finite number")
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
    text = value.strip(SPACE)
    return None if text in missing else text


def refuse_unknown_keys(
    record: Mapping[str, Any], known: Iterable[str], spare: Iterable[str], row: int = 1
) -> None:
    """Raise ``BadObject`` when a record has a key that is neither a feature nor spare."""
    for key in record:
        if key not in known and key not in spare:
            raise unknown_key(f"record {row}", str(key), list(known), row)


def unknown_key(name: str, key: str, known: list[str], row: int) -> BadObject:
    """The refusal of a record's key that the pipeline file does not have."""
    twin = look_alike(key, known)
    return BadObject(
        name,
        f"unknown key {quote(key)}"
        + (f"; {twin!r} differs only in letter case or spaces" if twin else ""),
        "send the model's columns: " + ", ".join(known[:12]),
        row=row,
        column=key,
    )


def folded(column: str) -> str:
    """A column name without what people do not see: spaces and letter case."""
    return "".join(column.split()).casefold()


def look_alike(column: str, others: Iterable[str]) -> str | None:
    """The first of *others* that looks like *column*."""
    return next((other for other in others if folded(other) == folded(column)), None)


def quote(value: Any) -> str:
    """A value as people read it, at most about 40 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
