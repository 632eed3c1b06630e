"""From columns of texts to the columns that the pipeline file declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ml_control.core.cells import SPACE, quote
from ml_control.core.header import check_columns
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

MAX_CELL = 131_072  # characters: what the standard library's CSV reader takes, too


@dataclass
class Plan:
    """What is read of a table, and as what: built from its header, used for block after block.

    ``wanted`` are the columns of the typed table in their order, ``numbers`` those that are
    Float64; the others are String. Rows without a value of ``required`` are counted here and
    refused by :meth:`finish`, so that the refusal can say how many there are.
    """

    name: str
    wanted: list[str]
    numbers: frozenset[str]
    missing: list[str]
    required: str | None
    rows: int = 0
    _gaps: int = 0
    _first_gap: int = 0

    @classmethod
    def of(
        cls, found: Sequence[str], spec: PipelineSpec, name: str, *, require_target: bool = True
    ) -> Plan:
        """The plan for a table with the columns *found*. Raises ``BadObject`` if they differ."""
        columns = spec.columns
        wanted = [feature.name for feature in columns.features]
        if require_target or columns.target in found:
            wanted.append(columns.target)
        check_columns(found, wanted, {*columns.ignore, columns.target}, name)
        numbers = {feature.name for feature in columns.features if feature.type == "number"}
        if columns.task == "regression":
            numbers.add(columns.target)
        required = columns.target if require_target else None
        return cls(name, wanted, frozenset(numbers), list(spec.source.missing), required)

    @property
    def numeric(self) -> list[str]:
        """The number columns among the wanted ones, in their order."""
        return [column for column in self.wanted if column in self.numbers]

    @property
    def texts(self) -> list[str]:
        """The text columns among the wanted ones, in their order."""
        return [column for column in self.wanted if column not in self.numbers]

    def from_texts(self, cells: pl.DataFrame) -> pl.DataFrame:
        """The next block, typed, from its cells as texts.

        Raises ``BadObject`` for the first row with an unusable cell, and there the first column.
        """
        import polars as pl

        if (row := self._first_long(cells)) is not None:
            self.stop(cells.head(row), self.long_cell(self.rows + row + 1))
        texts = cells.select(self.tidy(column) for column in self.wanted)
        typed = texts.with_columns(pl.col(self.numeric).cast(pl.Float64, strict=False))
        places = []
        for column in self.numeric:
            usable = typed[column].is_finite().fill_null(value=False) | texts[column].is_null()
            if not usable.all():
                places.append((int((~usable).arg_true()[0]), column))
        if places:
            row, column = min(places, key=lambda place: place[0])
            self.accept(typed.head(row))
            self.finish()
            raise self.bad_number(self.rows + 1, column, texts[column][row])
        return self.accept(typed)

    def stop(self, before: pl.DataFrame, error: BadObject) -> NoReturn:
        """Raise *error*, or what is wrong in the block of texts that stands before its place."""
        self.from_texts(before)
        self.finish()
        raise error

    def tidy(self, column: str) -> pl.Expr:
        """A text column, trimmed, the missing marks as null."""
        import polars as pl

        trimmed = pl.col(column).str.strip_chars(SPACE)
        return pl.when(trimmed.is_in(self.missing)).then(None).otherwise(trimmed).alias(column)

    def _first_long(self, cells: pl.DataFrame) -> int | None:
        """Where the first cell longer than ``MAX_CELL`` characters is, counted from 0."""
        import polars as pl

        if not cells.height:
            return None
        # Bytes are at least as many as characters and known without counting.
        sizes = cells.select(pl.all().str.len_bytes().max()).row(0)
        suspects = [c for c, size in zip(cells.columns, sizes, strict=True) if size > MAX_CELL]
        places = [(cells[c].str.len_chars() > MAX_CELL).arg_true() for c in suspects]
        return min((int(place[0]) for place in places if len(place)), default=None)

    def long_cell(self, row: int) -> BadObject:
        """The refusal of a cell that is too long."""
        return BadObject(
            self.name,
            f"row {row} has a field larger than {MAX_CELL:,} characters",
            "shorten the cell, and close every quoted cell",
            row=row,
        )

    def bad_number(self, row: int, column: str, text: str) -> BadObject:
        """The refusal of a text where a number is declared."""
        return BadObject(
            self.name,
            f"row {row}, column {quote(column)}: {quote(text)} is not a finite number",
            "correct the cell, or name the text under source.missing",
            row=row,
            column=column,
        )

    def accept(self, typed: pl.DataFrame) -> pl.DataFrame:
        """Count a typed block, and its rows without the required value."""
        if self.required is not None and (gaps := typed[self.required].null_count()):
            if not self._gaps:
                self._first_gap = self.rows + int(typed[self.required].is_null().arg_true()[0]) + 1
            self._gaps += gaps
        self.rows += typed.height
        return typed

    def finish(self) -> None:
        """Raise ``BadObject`` when rows had no required value."""
        if self._gaps:
            raise BadObject(
                self.name,
                f"row {self._first_gap} has no {quote(self.required)}, the target "
                f"({self._gaps} such rows)",
                "leave out rows whose outcome is not known yet",
                row=self._first_gap,
                column=self.required,
            )
