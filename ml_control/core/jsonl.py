"""JSON lines as a stream of typed blocks: one object a line, read as strictly as a request.

The values mean what they mean in :func:`ml_control.core.tabular.records_to_frame`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from ml_control.core.cells import category_cell, number_cell, quote, unknown_key
from ml_control.core.lines import Lines, before, flaw
from ml_control.core.plan import MAX_CELL, Plan
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

BLOCK = 16 << 20
_PLAIN = (int, float, type(None))


class JsonlReader:
    """One JSON-lines object in blocks. Rows are numbered from 1, without blank lines.

    A key that is left out, null or one of ``source.missing`` is missing. Raises ``BadObject``
    for *name* with the first bad row: a line that is no JSON object, a key twice, a key that is
    not declared, a value of the wrong type.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        name: str,
        spec: PipelineSpec,
        *,
        require_target: bool = True,
        block: int = BLOCK,
    ) -> None:
        self._name = name
        self._lines = Lines(chunks, name, block, "JSON lines")
        columns = spec.columns
        wanted = [*(feature.name for feature in columns.features), columns.target]
        self.plan = Plan.of(wanted, spec, name, require_target=require_target)
        self._known = frozenset([*wanted, *columns.ignore])
        self._missing = frozenset(spec.source.missing)

    def blocks(self) -> Iterator[pl.DataFrame]:
        """The rows in order, at least one."""
        while block := self._lines.take():
            found = flaw(block, self._lines.offset - len(block), self._name)
            good = before(block, found[0]) if found else block
            frame = self._read(good)
            if frame.height:
                yield frame
            if found:
                self.plan.finish()
                found[1].detail["row"] = self.plan.rows + 1
                raise found[1]
        self.plan.finish()

    def _read(self, block: bytes) -> pl.DataFrame:
        rows: list[dict[str, Any]] = []
        error: BadObject | None = None
        for line in block.splitlines():
            if not line or line.isspace():
                continue
            try:
                rows.append(self._record(line, self.plan.rows + len(rows) + 1))
            except BadObject as caught:
                error = caught
                break
        frame = self._typed(rows)
        if error is not None:
            self.plan.finish()
            raise error
        return frame

    def _record(self, line: bytes, row: int) -> dict[str, Any]:
        """One line as a flat object with known keys."""
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise self._bad(row, f"is not JSON: {error.msg}") from None
        if type(found) is not dict:
            raise self._bad(row, f"is not a JSON object but {type(found).__name__}")
        if not found.keys() <= self._known:
            key = next(key for key in found if key not in self._known)
            raise unknown_key(self._name, key, self.plan.wanted, row)
        if b"\\" in line:
            json.loads(line, object_pairs_hook=lambda pairs: self._distinct(pairs, row))
        else:
            # Without escapes, two quotes for each key and each text are all that there can be.
            texts = sum(type(value) is str for value in found.values())
            if line.count(b'"') != 2 * (len(found) + texts):
                json.loads(line, object_pairs_hook=lambda pairs: self._distinct(pairs, row))
        return found

    def _distinct(self, pairs: list[tuple[str, Any]], row: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise self._bad(row, f"has the key {quote(key)} twice", key)
            found[key] = value
        return found

    def _typed(self, rows: list[dict[str, Any]]) -> pl.DataFrame:
        """Records as columns. Raises ``BadObject`` for the first record with a wrong value."""
        import polars as pl

        columns: dict[str, list[Any]] = {}
        first: tuple[int, str, str] | None = None
        for column in self.plan.wanted:
            values = [record.get(column) for record in rows]
            number = column in self.plan.numbers
            if not number or not set(map(type, values)) <= set(_PLAIN):
                values, wrong = self._cells(values, number=number)
                if wrong is not None and (first is None or wrong[0] < first[0]):
                    first = wrong[0], column, wrong[1]
            columns[column] = values
        kept = len(rows) if first is None else first[0]
        numbers = self.plan.numbers
        frame = pl.DataFrame(
            [
                pl.Series(
                    name,
                    values[:kept],
                    dtype=pl.Float64 if name in numbers else pl.String,
                    strict=False,
                )
                for name, values in columns.items()
            ]
        )
        frame = self.plan.accept(frame)
        if first is not None:
            self.plan.finish()
            raise self._bad(self.plan.rows + 1, f"{first[1]}: {first[2]}", first[1])
        return frame

    def _cells(
        self, values: list[Any], *, number: bool
    ) -> tuple[list[Any], tuple[int, str] | None]:
        """Values by their cells' rules, up to the first wrong one: where and why."""
        read = number_cell if number else category_cell
        cells: list[Any] = []
        for place, value in enumerate(values):
            try:
                cell = read(value, self._missing)
                if type(cell) is str and len(cell) > MAX_CELL:
                    raise ValueError(f"a text of more than {MAX_CELL:,} characters")
            except ValueError as error:
                return cells, (place, str(error))
            cells.append(cell)
        return cells, None

    def _bad(self, row: int, reason: str, column: str | None = None) -> BadObject:
        where = {} if column is None else {"column": column}
        return BadObject(
            self._name,
            f"row {row} {reason}"
            if column is None or reason.startswith("has")
            else f"row {row}, {reason}",
            "write one flat JSON object a line, with the declared columns as keys",
            row=row,
            **where,
        )
