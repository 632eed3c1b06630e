"""A Parquet file as typed blocks of rows, read piece by piece.

A number comes from any numeric or boolean column (true is 1); NaN is missing, as other tools
write it for that, and an infinity is refused. A category comes from texts, categoricals (also
dictionary-encoded), integers, booleans (``true``, ``false``), dates and times (as in
``2026-01-31`` and ``2026-01-31 12:00:00.000000``). Texts are trimmed and the missing marks
become null. Texts are no numbers, and decimals and floats no categories: how they would be
written in a request cannot be known. Nested columns are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_control.core.cells import quote
from ml_control.core.header import names_of
from ml_control.core.plan import MAX_CELL, Plan
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

_MAGIC = b"PAR1"
BLOCK_ROWS = 250_000
_BLOCK_BYTES = 64 << 20


class ParquetReader:
    """One Parquet object in blocks; rows are numbered from 1.

    Raises ``BadObject`` for *name*: a file that is cut off or damaged, other columns than the
    declared ones, a type that does not fit, an infinity.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        spec: PipelineSpec,
        *,
        require_target: bool = True,
        rows: int = BLOCK_ROWS,
    ) -> None:
        import polars as pl

        self._path, self._name = path, name
        self._check_ends()
        # Folder names such as dt=... are no columns, and no character of a name is a pattern.
        self._scan = pl.scan_parquet(
            path, hive_partitioning=False, glob=False, low_memory=True, parallel="columns"
        )
        schema = self._tried(self._scan.collect_schema)
        found = list(schema)
        names = names_of(found, name)
        self.plan = Plan.of(names, spec, name, require_target=require_target)
        self._columns = dict(zip(names, found, strict=True))
        for column in self.plan.wanted:
            self._check_type(column, schema[self._columns[column]])
        self._total = int(self._tried(lambda: self._scan.select(pl.len()).collect()).item())
        if not self._total:
            raise BadObject(name, "has columns and no rows", "put a file with rows in its place")
        # Compressed texts may grow severalfold.
        size = max(8 * len(found), 4 * path.stat().st_size // self._total)
        self._rows = max(1, min(rows, _BLOCK_BYTES // size))

    def blocks(self) -> Iterator[pl.DataFrame]:
        """The rows in order."""
        wanted = [self._columns[column] for column in self.plan.wanted]
        for start in range(0, self._total, self._rows):
            piece = self._scan.select(wanted).slice(start, self._rows)
            frame = self._tried(lambda piece=piece: piece.collect(engine="in-memory"))
            yield self._typed(frame.rename(dict(zip(wanted, self.plan.wanted, strict=True))))
        self.plan.finish()

    def _check_ends(self) -> None:
        with self._path.open("rb") as stream:
            head = stream.read(4)
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 4))
            tail = stream.read(4)
        if not size:
            raise BadObject(self._name, "is empty (0 bytes)", "copy the file again")
        if head != _MAGIC:
            raise BadObject(self._name, "is not a Parquet file", "export it as Parquet")
        if tail != _MAGIC or size < 12:
            raise BadObject(
                self._name, "is cut off: it has no Parquet footer", "copy the file again"
            )

    def _tried(self, read: Any) -> Any:
        """What polars reads; whatever it says of a damaged file is one refusal."""
        import polars as pl

        try:
            return read()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            said = " ".join(str(error).split())[:200]
            raise BadObject(
                self._name, f"is a damaged Parquet file: {said}", "copy or export the file again"
            ) from None

    def _check_type(self, column: str, kind: pl.DataType) -> None:
        import polars as pl

        number = column in self.plan.numbers
        if number:
            fits = kind.is_numeric() or kind in (pl.Boolean, pl.Null)
        else:
            fits = (
                kind.is_integer()
                or kind in (pl.String, pl.Boolean, pl.Null, pl.Date, pl.Time)
                or isinstance(kind, pl.Categorical | pl.Enum | pl.Datetime)
            )
        if not fits:
            raise BadObject(
                self._name,
                f"column {quote(column)} has the type {str(kind)[:80]}, "
                f"where a {'number' if number else 'category'} is declared",
                "convert the column, or declare it as what it is",
                column=column,
            )

    def _typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A block in the declared types. Raises ``BadObject`` for the first unusable cell."""
        import polars as pl

        texts = [pl.col(column).cast(pl.String) for column in self.plan.texts]
        frame = frame.with_columns(texts)
        numbers = [pl.col(column).cast(pl.Float64).fill_nan(None) for column in self.plan.numeric]
        typed = frame.with_columns(*numbers, *map(self.plan.tidy, self.plan.texts))
        wrong: list[tuple[int, str]] = []
        for column in self.plan.wanted:
            bad = (
                typed[column].is_infinite()
                if column in self.plan.numbers
                else frame[column].str.len_chars() > MAX_CELL
            )
            if bad.any():
                wrong.append((int(bad.arg_true()[0]), column))
        if wrong:
            row, column = min(wrong, key=lambda place: place[0])
            self.plan.accept(typed.head(row))
            self.plan.finish()
            if column in self.plan.numbers:
                raise self.plan.bad_number(self.plan.rows + 1, column, str(typed[column][row]))
            raise self.plan.long_cell(self.plan.rows + 1)
        return self.plan.accept(typed)
