"""Objects of the lake as typed rows, in whatever form the pipeline's objects come."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from ml_control.core.digests import sha256
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event, ObjectRef
from ml_control.errors import BadObject
from ml_control.lake import Lake, file_digest
from ml_control.services.arrivals.intake import label_of

if TYPE_CHECKING:
    import polars as pl

    from ml_control.core.images import AuditRow

_AT_ONCE = 4 << 20  # bytes of an object that is read in one piece


class Reading:
    """One pinned object of a table format, read once from its beginning to its end."""

    def __init__(self, lake: Lake, pipeline: Pipeline, item: Event | ObjectRef) -> None:
        self._lake, self._pipeline, self._item = lake, pipeline, item
        self.digest = ""  # SHA-256 of what was read, once the last block was taken

    def blocks(self) -> Generator[pl.DataFrame]:
        """The rows, typed, in bounded blocks.

        Blocks count only when the last one was taken without an error: the digest is known then.
        Raises ``BadObject`` when its content is unusable or is no longer what was recorded, and
        ``Retryable`` when it is not in the lake.
        """
        if self._pipeline.spec.source.format == "parquet":
            yield from self._parquet()
            return
        from ml_control.core.tabular import text_blocks

        chunks = _Watched(self._lake, self._item)
        try:
            yield from text_blocks(chunks, self._pipeline.spec, self._item.key)
        except BadObject:
            # Bytes that a slow writer changed are no fault of the file that was recorded.
            chunks.check()
            raise
        self.digest = chunks.check()

    def _parquet(self) -> Iterator[pl.DataFrame]:
        from ml_control.core.parquet import ParquetReader

        item = self._item
        with self._lake.local_file(item.path) as path:
            before = path.stat()
            digest = _as_recorded(item, file_digest(path))

            def unchanged() -> None:
                now = path.stat()
                if (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
                    raise _changed(item)

            try:
                yield from ParquetReader(path, item.key, self._pipeline.spec).blocks()
            except BadObject:
                unchanged()
                raise
            unchanged()
        self.digest = digest


class _Watched:
    """An object's bytes in chunks, whose digest must be the recorded one at the end."""

    def __init__(self, lake: Lake, item: Event | ObjectRef) -> None:
        self._item = item
        self._digest = hashlib.sha256()
        # One request for what is small: a partition may be thousands of small objects.
        small = item.size <= _AT_ONCE
        self._chunks = iter([lake.get(item.path)]) if small else lake.stream(item.path)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            yield chunk

    def check(self) -> str:
        """Read what is left; the digest. Raises ``BadObject`` when it is not the recorded one."""
        for chunk in self._chunks:
            self._digest.update(chunk)
        return _as_recorded(self._item, self._digest.hexdigest())


def read_image(lake: Lake, pipeline: Pipeline, item: Event | ObjectRef) -> tuple[AuditRow, str]:
    """One pinned image, decoded, and its digest. Raises as :meth:`Reading.blocks` does."""
    from ml_control.core.images import audit_row

    data = lake.get(item.path)
    digest = _as_recorded(item, sha256(data))
    return audit_row(data, pipeline.spec.source.image, item.key), digest


def _as_recorded(item: Event | ObjectRef, digest: str) -> str:
    """The digest of what was read, unless another one was recorded (``BadObject``)."""
    if item.content and digest != item.content:
        raise _changed(item)
    return digest


def image_frame(pipeline: Pipeline, keys: list[str], rows: list[AuditRow]) -> pl.DataFrame:
    """Decoded images as one table; the label is the folder in the key."""
    import numpy as np
    import polars as pl

    shape = _pixels(pipeline)
    flat = np.frombuffer(b"".join(row.pixels for row in rows), dtype=np.uint8)
    return pl.DataFrame(
        {
            pipeline.spec.columns.target: [label_of(key) for key in keys],
            "width": [row.width for row in rows],
            "height": [row.height for row in rows],
            "brightness": [row.brightness for row in rows],
            "contrast": [row.contrast for row in rows],
            "pixels": pl.Series(flat.reshape(len(rows), shape), dtype=pl.Array(pl.UInt8, shape)),
        },
        schema_overrides=dict.fromkeys([pipeline.spec.columns.target], pl.String),
    )


def verify(lake: Lake, items: Iterable[ObjectRef]) -> None:
    """Raise ``BadObject`` when an object's bytes are others than recorded; rows are not read."""
    for item in items:
        _Watched(lake, item).check()


def empty(pipeline: Pipeline) -> pl.DataFrame:
    """No rows, with the columns and types that the pipeline's objects have."""
    import polars as pl

    columns = pipeline.spec.columns
    target = pl.Float64 if columns.task == "regression" else pl.String
    if pipeline.spec.source.format == "images":
        return pl.DataFrame(
            schema={
                columns.target: target,
                "width": pl.Int64,
                "height": pl.Int64,
                "brightness": pl.Float64,
                "contrast": pl.Float64,
                "pixels": pl.Array(pl.UInt8, _pixels(pipeline)),
            }
        )
    features = {f.name: pl.Float64 if f.type == "number" else pl.String for f in columns.features}
    return pl.DataFrame(schema={**features, columns.target: target})


def _pixels(pipeline: Pipeline) -> int:
    image = pipeline.spec.source.image
    return image.height * image.width * (1 if image.mode == "grey" else 3)


def _changed(item: Event | ObjectRef) -> BadObject:
    return BadObject(
        item.key,
        "its bytes changed after they were recorded",
        "land the object again, whole",
        changed=True,
    )
