"""The columns that a table has against those that the pipeline file declares."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ml_control.core.cells import SPACE, folded, quote
from ml_control.errors import BadObject

MAX_COLUMNS = 10_000
_TOLD = 5


def names_of(cells: Sequence[str], name: str) -> list[str]:
    """Trimmed, distinct, non-empty column names. Raises ``BadObject`` for object *name*."""
    if len(cells) > MAX_COLUMNS:
        raise BadObject(
            name,
            f"has {len(cells):,} columns; at most {MAX_COLUMNS:,}",
            "keep the columns that the pipeline file names",
        )
    names = [cell.strip(SPACE) for cell in cells]
    seen: dict[str, str] = {}
    for position, column in enumerate(names, start=1):
        if not column:
            raise BadObject(
                name, f"header column {position} has no name", "name every column", column=column
            )
        twin = seen.get(folded(column))
        if twin is not None:
            how = (
                "is there twice"
                if twin == column
                else f"differs from {quote(twin)} only in letter case or spaces"
            )
            raise BadObject(
                name, f"header column {quote(column)} {how}", "keep one of the two", column=column
            )
        seen[folded(column)] = column
    return names


def check_columns(
    found: Sequence[str], wanted: Sequence[str], spare: Collection[str], name: str
) -> None:
    """Every wanted column is there, and nothing that is neither wanted nor spare.

    Raises ``BadObject`` whose reason is the difference in one sentence: what is missing, what
    looks like it, what is there too much. ``column`` is the first of them.
    """
    there = set(found)
    missing = [column for column in wanted if column not in there]
    known = {*wanted, *spare}
    spare_folded = {folded(column): column for column in found}
    pairs = [(c, spare_folded[folded(c)]) for c in missing if folded(c) in spare_folded]
    paired = {twin for _, twin in pairs}
    unexpected = [c for c in found if c not in known and c not in paired]
    if not missing and not unexpected:
        return
    said = []
    if missing:
        said.append(f"column {quote(missing[0])} is missing{_more('so', missing[1:])}")
    if len(pairs) == 1:
        said.append(f"the header has {quote(pairs[0][1])}, which differs in letter case or spaces")
    elif pairs:
        listed = _listed([f"{quote(twin)} for {quote(column)}" for column, twin in pairs])
        said.append(f"the header has {listed}, which differ in letter case or spaces")
    if unexpected:
        said.append(f"unexpected column {quote(unexpected[0])}{_more('also', unexpected[1:])}")
    raise BadObject(
        name,
        "; ".join(said),
        "the header has: " + _listed([quote(column) for column in found], 20)
        if missing
        else "declare it under columns.features or columns.ignore",
        column=(missing or unexpected)[0],
    )


def _more(word: str, others: Sequence[str]) -> str:
    if not others:
        return ""
    verb = f"{word} {'is' if len(others) == 1 else 'are'} " if word == "so" else f"{word} "
    return f" ({verb}{_listed([quote(column) for column in others])})"


def _listed(texts: Sequence[str], most: int = _TOLD) -> str:
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")
