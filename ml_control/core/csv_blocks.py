"""CSV as a stream of typed blocks, each read as fast as its text allows.

A block is whole lines. Four ways lead to the same table or the same refusal:

small    plain Python, for the few lines of a small file.
fast     polars reads the declared types straight from the bytes. Taken only when the block
         cannot hold anything odd, and kept only when every number is finite.
texts    polars splits the lines, and the cells become types as :class:`Plan` says.
careful  the standard library's strict reader, for quotes that are not plainly around a cell.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING

from ml_control.core.csv_small import SMALL, read_small
from ml_control.core.header import names_of
from ml_control.core.lines import Lines, before, flaw
from ml_control.core.plan import MAX_CELL, Plan
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

BLOCK = 32 << 20
_SCAN = 1 << 18
_NEWLINE, _COMMA = 10, 44
# A quoted cell on one line, with nothing between its quotes and the separators.
_QUOTED = re.compile(rb'(?<![^,\n])"[^"\n]*+(?:""[^"\n]*+)*+"(?![^,\n])')


class CsvReader:
    """One CSV object: its header's names, then its blocks.

    Without *spec* every cell is a trimmed text under its header name. Raises ``BadObject`` for
    *name*, with ``row`` and ``column`` where there is one; the row is the first bad one. Rows
    are numbered from 1, without the header and without blank lines.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        name: str,
        spec: PipelineSpec | None,
        *,
        require_target: bool = True,
        block: int = BLOCK,
        fast: bool = True,
        small: int = SMALL,
    ) -> None:
        self._name, self._fast, self._small = name, fast, small
        self._lines = Lines(chunks, name, block, "CSV")
        self._names = self._header()
        if spec is None:
            self.plan = Plan(name, self._names, frozenset(), [], None)
        else:
            self.plan = Plan.of(self._names, spec, name, require_target=require_target)

    def blocks(self) -> Iterator[pl.DataFrame]:
        """The rows in order, at least one."""
        while block := self._lines.take():
            for frame in self._read(block):
                if frame.height:
                    yield frame
        self.plan.finish()
        if not self.plan.rows:
            raise BadObject(
                self._name, "has a header and no rows", "put a file with rows in its place"
            )

    def _header(self) -> list[str]:
        block = self._lines.take()
        if found := flaw(block, self._lines.offset - len(block), self._name):
            at, error = found
            block, rest = before(block, at), block
            if not block:
                raise error
            self._lines.give_back(rest[len(block) :])
        first = re.split(rb"[\r\n]", block, maxsplit=1)[0]
        if b'"' not in first:
            self._lines.give_back(block[len(first) :].lstrip(b"\r\n"))
            return names_of(first.decode().split(","), self._name)
        records = _Records(block, self._lines, self._name)
        cells = next(records.rows(0))
        self._lines.give_back(records.rest())
        return names_of(cells, self._name)

    def _read(self, block: bytes) -> Iterator[pl.DataFrame]:
        """A block of whole lines, typed."""
        if self._fast and (frame := self._straight(block)) is not None:
            yield self.plan.accept(frame)
            return
        found = flaw(block, self._lines.offset - len(block), self._name)
        good = before(block, found[0]) if found else block
        if b'"' in good:
            yield from self._carefully(good)
        elif good:
            yield self._texts(good)
        if found:
            self.plan.finish()
            raise self._placed(found[1])

    def _straight(self, block: bytes) -> pl.DataFrame | None:
        """The block read at once, or None when it has to be looked at more closely."""
        import polars as pl

        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        if len(block) < self._small:
            frame = read_small(block, self._names, self.plan)
            if frame is not None:
                return frame
        # An empty text is null to polars, so it has to be a missing mark.
        if "" not in self.plan.missing or b"\r" in block or b"\0" in block:
            return None
        quoted = b'"' in block
        bare = _QUOTED.sub(b"", block) if quoted else block
        if b'"' in bare or not (block.isascii() or _is_text(block)):
            return None
        rows = _rows(block)
        # polars refuses rows that are too long, so with this sum none can be too short either.
        if rows is None or _commas(bare) != rows * (len(self._names) - 1):
            return None
        numbers = self.plan.numbers
        schema = {n: pl.Float64 if n in numbers else pl.String for n in self._names}
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                schema=schema,
                quote_char='"' if quoted else None,
                null_values=self.plan.missing,
            )
        except pl.exceptions.PolarsError:
            return None
        if frame.height != rows:
            return None
        sums = frame.select(pl.col(self.plan.numeric).sum())
        if not all(sums.select(pl.all().is_finite()).row(0) if sums.width else ()):
            return None
        texts = [self.plan.tidy(column) for column in self.plan.texts]
        return frame.select(self.plan.wanted).with_columns(texts)

    def _texts(self, block: bytes) -> pl.DataFrame:
        """A block without quotes: every comma separates."""

        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        while b"\n\n" in block:
            block = block.replace(b"\n\n", b"\n")
        block = block.strip(b"\n")
        names = self._names
        if not block:
            return self.plan.from_texts(_empty(names))
        ragged = _ragged(block, len(names))
        if ragged is not None:
            row, cells = ragged
            good = b"\n".join(block.split(b"\n", row)[:row])
            table = _split(good, names) if row else _empty(names)
            self.plan.stop(table, self._ragged_row(self.plan.rows + row + 1, cells))
        return self.plan.from_texts(_split(block, names))

    def _carefully(self, block: bytes) -> Iterator[pl.DataFrame]:
        """A block with quotes, by the standard library; may take lines behind the block."""
        records = _Records(block, self._lines, self._name)
        table: list[list[str]] = []
        try:
            for cells in records.rows(self.plan.rows):
                if len(cells) != len(self._names):
                    raise self._ragged_row(self.plan.rows + len(table) + 1, len(cells))
                table.append(cells)
        except BadObject as error:
            row = self.plan.rows + len(table) + 1
            self.plan.stop(_frame(table, self._names), self._placed(error, row))
        self._lines.give_back(records.rest())
        yield self.plan.from_texts(_frame(table, self._names))

    def _placed(self, error: BadObject, row: int | None = None) -> BadObject:
        """The refusal of a wrong encoding, with its row."""
        if "UTF-8:" in error.reason:
            error.detail.setdefault("row", row or self.plan.rows + 1)
        return error

    def _ragged_row(self, row: int, cells: int) -> BadObject:
        return BadObject(
            self._name,
            f"row {row} has {cells} cells, the header has {len(self._names)}",
            "quote cells that contain a comma, and write every cell",
            row=row,
        )


class _Records:
    """The records of a block with quotes, to the end of the record that its last line begins."""

    def __init__(self, block: bytes, lines: Lines, name: str) -> None:
        self._lines, self._name = lines, name
        self._text = io.StringIO(block.decode(), newline="")
        self._size = len(self._text.getvalue())
        self._further = False

    def _source(self) -> Iterator[str]:
        while True:
            yield from iter(self._text.readline, "")
            block = self._lines.take()
            if not block:
                return
            if found := flaw(block, self._lines.offset - len(block), self._name):
                at, error = found
                good = before(block, at)
                if not good:
                    raise error
                self._lines.give_back(block[len(good) :])
                block = good
            self._further = True
            self._text = io.StringIO(block.decode(), newline="")

    def rows(self, seen: int) -> Iterator[list[str]]:
        """Cells of each record; *seen* rows came before. Blank lines are left out."""
        reader = csv.reader(self._source(), strict=True, skipinitialspace=True)
        count = seen
        while not self._further and self._text.tell() < self._size:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise self._not_csv(count + 1, str(error)) from None
            if cells is None:
                return
            if cells:
                count += 1
                yield cells

    def rest(self) -> bytes:
        """The lines that were taken and not used."""
        return self._text.read().encode()

    def _not_csv(self, row: int, said: str) -> BadObject:
        if said.startswith("field larger"):
            return BadObject(
                self._name,
                f"row {row} has a field larger than {MAX_CELL:,} characters",
                "shorten the cell, and close every quoted cell",
                row=row,
            )
        return BadObject(
            self._name,
            f"row {row} is not CSV: {said}",
            "write quotes inside a quoted cell twice, and close every quoted cell",
            row=row,
        )


def _rows(block: bytes) -> int | None:
    """How many lines a block without carriage returns has; None when one is blank or long."""
    import numpy as np

    units = np.frombuffer(block, dtype=np.uint8)
    ends = np.concatenate(
        [np.flatnonzero(units[at : at + _SCAN] == _NEWLINE) + at for at in _starts(units)]
    )
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    sizes = np.diff(ends, prepend=-1) - 1
    return None if sizes.min() < 1 or sizes.max() > MAX_CELL else len(sizes)


def _commas(block: bytes) -> int:
    import numpy as np

    # bytes.count takes five times as long, and holds the interpreter.
    units = np.frombuffer(block, dtype=np.uint8)
    return sum(int(np.count_nonzero(units[at : at + _SCAN] == _COMMA)) for at in _starts(units))


def _starts(units: Sized) -> range:
    """Pieces that stay in the processor's cache."""
    return range(0, len(units), _SCAN)


def _is_text(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ragged(block: bytes, width: int) -> tuple[int, int] | None:
    """The first line, from 0, with another number of cells, and that number.

    polars silently fills short rows, so the commas of each line are counted.
    """
    import numpy as np

    units = np.frombuffer(block, dtype=np.uint8)
    ends = np.append(np.flatnonzero(units == ord("\n")), len(units))
    behind = np.searchsorted(np.flatnonzero(units == ord(",")), ends)
    counts = np.diff(behind, prepend=0) + 1
    wrong = np.flatnonzero(counts != width)
    return (int(wrong[0]), int(counts[wrong[0]])) if len(wrong) else None


def _split(block: bytes, names: list[str]) -> pl.DataFrame:
    """Cells as texts of whole rows without quotes; a null can only be an empty cell."""
    import polars as pl

    schema = dict.fromkeys(names, pl.String)
    frame = pl.read_csv(block, has_header=False, schema=schema, quote_char=None)
    return frame.fill_null("")


def _frame(table: list[list[str]], names: list[str]) -> pl.DataFrame:
    import polars as pl

    columns = list(zip(*table, strict=True)) or [()] * len(names)
    series = zip(names, columns, strict=True)
    return pl.DataFrame([pl.Series(n, values, dtype=pl.String) for n, values in series])


def _empty(names: list[str]) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
