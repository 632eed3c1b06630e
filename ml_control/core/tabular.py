"""Tables from bytes: typed blocks of rows, or a refusal that names the row and column.

Cells are texts until the pipeline file says otherwise: a column is read as the type that is
declared for it and is never guessed, so the same bytes always give the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.cells import category_cell, number_cell, refuse_unknown_keys
from ml_control.core.csv_blocks import CsvReader
from ml_control.core.jsonl import JsonlReader
from ml_control.errors import BadObject
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "category_cell",
    "number_cell",
    "read_cells",
    "read_csv",
    "records_to_frame",
    "refuse_unknown_keys",
    "text_blocks",
]


def text_blocks(
    chunks: Iterable[bytes], spec: PipelineSpec, name: str, **options: Any
) -> Iterator[pl.DataFrame]:
    """The rows of a CSV or JSON-lines object as typed blocks, from its bytes in chunks.

    Each block has the declared features in the pipeline file's order, then the target. A block
    holds a few ten megabytes at most; together they are the rows in order. Raises ``BadObject``
    for *name*, with ``row`` and ``column`` where there is one; blocks before it count for
    nothing.
    """
    if spec.source.format == "jsonl":
        return JsonlReader(chunks, name, spec, **options).blocks()
    return CsvReader(chunks, name, spec, **options).blocks()


def read_csv(
    data: bytes, spec: PipelineSpec, name: str, *, require_target: bool = True
) -> pl.DataFrame:
    """The declared features in the pipeline file's order, then the target.

    Header names are matched exactly after trimming, in any order. Cells are trimmed and the
    texts in ``source.missing`` become null. Numbers are Float64, categories String; the target
    is String, or Float64 for regression. Columns under ``columns.ignore`` are dropped.
    With ``require_target=False`` the target may be absent, or null in some rows.

    Raises ``BadObject`` for *name*, with ``row`` and ``column`` where there is one.
    """
    import polars as pl

    return pl.concat(CsvReader([data], name, spec, require_target=require_target).blocks())


def read_cells(data: bytes, name: str) -> pl.DataFrame:
    """The cells of a CSV as trimmed texts, under their trimmed header names.

    Accepts a byte-order mark, any line ending, quoted commas and line breaks, and blank lines.
    Raises ``BadObject`` for anything that is not rectangular UTF-8 CSV with distinct header
    names and at least one row.
    """
    import polars as pl

    return pl.concat(CsvReader([data], name, None).blocks())


def records_to_frame(records: Sequence[Mapping[str, Any]], spec: PipelineSpec) -> pl.DataFrame:
    """JSON records as the table that :func:`read_csv` would give for the same values.

    A key that is left out, null or one of ``source.missing`` is missing; the target and the
    ignored columns may be there and are dropped. Raises ``BadObject`` (``row``, ``column``)
    for an unknown key or a value of the wrong type.
    """
    import polars as pl

    missing = frozenset(spec.source.missing)
    features = spec.columns.features
    known = {feature.name for feature in features}
    spare = {*spec.columns.ignore, spec.columns.target}
    for row, record in enumerate(records, start=1):
        refuse_unknown_keys(record, known, spare, row)
    series = []
    for feature in features:
        read = number_cell if feature.type == "number" else category_cell
        kind = pl.Float64() if feature.type == "number" else pl.String()
        values = []
        for row, record in enumerate(records, start=1):
            try:
                values.append(read(record.get(feature.name), missing))
            except ValueError as error:
                raise BadObject(
                    f"record {row}", f"{feature.name}: {error}", row=row, column=feature.name
                ) from None
        series.append(pl.Series(feature.name, values, dtype=kind))
    return pl.DataFrame(series)
