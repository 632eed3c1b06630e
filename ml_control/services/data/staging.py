"""Rows of a partition into Parquet parts, in the lake before anything refers to them.

A part is named by its own bytes and lies beside the manifests of its partition, so writing it
again changes nothing and a process that dies leaves whole parts or none. Which rows share a part
depends on the objects alone: an object of many rows has its own parts, the others share theirs
in the order of their keys.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ml_control.core.ahead import one_ahead
from ml_control.core.digests import sha256
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event, FileRef, ObjectRef
from ml_control.lake import Lake
from ml_control.services.arrivals.objects import Reading, empty, image_frame, read_image

if TYPE_CHECKING:
    import polars as pl

    from ml_control.core.images import AuditRow

_PART_ROWS = 500_000
_PART_BYTES = 128 << 20
_ROW_GROUPS = 4  # of a part: readers hold one at a time
_KEPT_BYTES = 96 << 20
_IMAGES = 2048
_LARGE_BYTES = 16 << 20  # from here on reading and writing are worth a thread each


def part_rows(pipeline: Pipeline) -> int:
    """Rows of a full part: 500,000, or as many as take about 128 MB."""
    size = 40  # row id and split
    for kind in empty(pipeline).schema.dtypes():
        size += getattr(kind, "size", 0) or (8 if kind.is_numeric() else 16)
    return max(1, min(_PART_ROWS, _PART_BYTES // size))


class PartWriter:
    """Typed rows in, parts in the lake out. Holds one part's rows."""

    def __init__(self, lake: Lake, pipeline: Pipeline, partition: str) -> None:
        self._lake, self._pipeline = lake, pipeline
        self._folder = parts_folder(pipeline, partition)
        self._full = part_rows(pipeline)
        self._pending: list[pl.DataFrame] = []
        self._rows = 0
        self._files: list[FileRef] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take rows with their ids; writes a part whenever one is full."""
        while self._rows + frame.height >= self._full:
            room = self._full - self._rows
            self._pending.append(frame.head(room))
            frame = frame.slice(room)
            self._write()
        if frame.height:
            self._pending.append(frame)
            self._rows += frame.height

    def finish(self, *, at_least: int = 0) -> list[FileRef]:
        """Write the rest; the parts in order. With ``at_least`` 1, an empty one if need be."""
        if self._pending or len(self._files) < at_least:
            self._write()
        return self._files

    def _write(self) -> None:
        import polars as pl

        pending, self._pending, self._rows = self._pending, [], 0
        if not pending:
            pending = [_numbered(empty(self._pipeline), "", 1)]
        frame = pl.concat(pending, rechunk=True)  # bytes must not depend on how blocks came
        pending.clear()
        frame = frame.with_columns(_split(frame, self._pipeline))
        buffer = io.BytesIO()
        frame.write_parquet(
            buffer,
            compression="lz4",  # as small as zstd's fastest here, in half its time
            statistics=True,
            row_group_size=max(1, self._full // _ROW_GROUPS),
        )
        data = buffer.getbuffer()
        digest = sha256(data)
        path = f"{self._folder}/part-{digest[:24]}.parquet"
        self._lake.put(path, data)
        self._files.append(FileRef(path=path, digest=digest, size=len(data), rows=frame.height))


def _split(frame: pl.DataFrame, pipeline: Pipeline) -> pl.Series:
    from ml_control.core.dataset import assign_split, content_hash, hash_bytes

    if pipeline.spec.source.format == "images":
        hashes = hash_bytes([row.tobytes() for row in frame["pixels"].to_numpy()])
    else:
        # Features only: equal rows stay on one side of the split whatever their labels say.
        hashes = content_hash(frame, [f.name for f in pipeline.spec.columns.features])
    return assign_split(hashes, pipeline.spec.training.split)


def parts_folder(pipeline: Pipeline, partition: str) -> str:
    """Where the parts of a partition lie, whichever manifests list them."""
    return f"processed/{pipeline.name}/dt={partition}/parts"


class Kept:
    """What this process has read of objects and not yet published: rows, or parts in the lake.

    Only this process's own reading is trusted, so nothing here can be stale or foreign. Rows of
    many small objects are kept up to a bound, the oldest going first.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, ...], tuple[Any, int]] = OrderedDict()
        self._size = 0

    def put(self, name: tuple[str, ...], value: Any, size: int) -> None:
        """Keep an object's rows or parts; *size* in bytes."""
        self.drop(name)
        self._held[name] = (value, size)
        self._size += size
        while self._size > _KEPT_BYTES:
            _, (_, gone) = self._held.popitem(last=False)
            self._size -= gone

    def get(self, name: tuple[str, ...]) -> Any:
        """What was kept, or None."""
        return self._held.get(name, (None, 0))[0]

    def drop(self, name: tuple[str, ...]) -> None:
        """Forget an object."""
        _, size = self._held.pop(name, (None, 0))
        self._size -= size


_KEPT: WeakKeyDictionary[Lake, Kept] = WeakKeyDictionary()


class Stage:
    """A partition's objects on their way into parts."""

    def __init__(self, lake: Lake, pipeline: Pipeline, partition: str) -> None:
        self._lake, self._pipeline, self._partition = lake, pipeline, partition
        self._kept = _KEPT.setdefault(lake, Kept())
        self._own = max(1, part_rows(pipeline) // 4)  # rows from which an object has own parts

    def take(self, item: Event | ObjectRef) -> tuple[int, str]:
        """Read an object to its end for the first time; its rows' number and its digest.

        Raises ``BadObject`` when it is unusable or has changed, ``Retryable`` when it is absent.
        """
        if self._pipeline.spec.source.format == "images":
            row, digest = read_image(self._lake, self._pipeline, item)
            self._kept.put(self._name(item), row, len(row.pixels) + 300)
            return 1, digest
        first: list[pl.DataFrame] = []
        writer: PartWriter | None = None
        rows = 0
        reading = Reading(self._lake, self._pipeline, item)
        blocks = reading.blocks()
        for block in one_ahead(blocks) if item.size > _LARGE_BYTES else blocks:
            numbered = _numbered(block, item.version, rows + 1)
            rows += block.height
            if writer is None:
                first.append(numbered)
                if rows < self._own:
                    continue
                writer = PartWriter(self._lake, self._pipeline, self._partition)
                for frame in first:
                    writer.add(frame)
                first.clear()
            else:
                writer.add(numbered)
        if writer is None:
            size = sum(int(f.estimated_size()) + 200 * f.width for f in first)
            self._kept.put(self._name(item), first, size)
        else:
            self._kept.put(self._name(item), tuple(writer.finish()), 0)
        return rows, reading.digest

    def has(self, item: ObjectRef) -> bool:
        """Whether this process has just read the object, and holds what it read."""
        return self._kept.get(self._name(item)) is not None

    def rows(self, objects: Sequence[ObjectRef]) -> Iterator[pl.DataFrame]:
        """The rows of objects in blocks, with their ids, from what is kept or else the lake."""
        if self._pipeline.spec.source.format == "images":
            yield from self._images(objects)
            return
        for item in objects:
            kept = self._kept.get(self._name(item))
            if isinstance(kept, tuple):
                for file in kept:
                    yield read_parquet(self._lake, file).drop("split")
            elif kept is not None:
                yield from kept
            else:
                rows = 0
                for block in Reading(self._lake, self._pipeline, item).blocks():
                    yield _numbered(block, item.version, rows + 1)
                    rows += block.height

    def _images(self, objects: Sequence[ObjectRef]) -> Iterator[pl.DataFrame]:
        import polars as pl

        from ml_control.core.dataset import row_ids

        group = max(1, min(_IMAGES, part_rows(self._pipeline)))
        for start in range(0, len(objects), group):
            items = objects[start : start + group]
            rows: list[AuditRow] = [
                self._kept.get(self._name(item)) or read_image(self._lake, self._pipeline, item)[0]
                for item in items
            ]
            ids = [row_ids(item.version, 1)[0] for item in items]
            frame = image_frame(self._pipeline, [item.key for item in items], rows)
            yield frame.with_columns(pl.Series("row_id", ids, dtype=pl.String))

    def parts(self, objects: Sequence[ObjectRef]) -> list[FileRef]:
        """Every object's rows in parts, in an order that their keys decide."""
        large = [item for item in objects if item.rows >= self._own]
        shared = PartWriter(self._lake, self._pipeline, self._partition)
        for frame in self.rows([item for item in objects if item.rows < self._own]):
            shared.add(frame)
        files = list(shared.finish(at_least=0 if large else 1))
        for item in large:
            kept = self._kept.get(self._name(item))
            if isinstance(kept, tuple):
                files += kept
                continue
            own = PartWriter(self._lake, self._pipeline, self._partition)
            for frame in self.rows([item]):
                own.add(frame)
            files += own.finish()
        return files

    def forget(self, objects: Sequence[ObjectRef]) -> None:
        """Keep nothing of these objects any longer."""
        for item in objects:
            self._kept.drop(self._name(item))

    def _name(self, item: Event | ObjectRef) -> tuple[str, ...]:
        digest = self._pipeline.transform_digest
        return (self._pipeline.name, self._partition, item.key, item.version, digest)


def _numbered(block: pl.DataFrame, version: str, first: int) -> pl.DataFrame:
    from ml_control.core.dataset import row_ids

    return block.hstack([row_ids(version, block.height, first)])


def read_parquet(lake: Lake, file: FileRef) -> pl.DataFrame:
    """A part, its bytes checked against their digest. Raises ``BadObject``."""
    import polars as pl

    return pl.read_parquet(lake.verified(file.path, file.digest))
