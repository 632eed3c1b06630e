"""Objects of the lake as typed rows, in whatever form the pipeline's objects come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ml_control.core.digests import sha256
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event, ObjectRef
from ml_control.errors import BadObject
from ml_control.lake import Lake
from ml_control.services.intake import label_of

if TYPE_CHECKING:
    import polars as pl


def read_object(lake: Lake, pipeline: Pipeline, item: Event | ObjectRef) -> pl.DataFrame:
    """The rows of one pinned object, typed.

    Raises ``BadObject`` when its content is unusable or is no longer what was recorded, and
    ``Retryable`` when it is not in the lake.
    """
    data = lake.get(item.path)
    if sha256(data) != item.version:
        raise BadObject(
            item.key,
            "its bytes changed after they were recorded",
            "land the object again, whole",
            changed=True,
        )
    if pipeline.spec.source.format == "csv":
        from ml_control.core.tabular import read_csv

        return read_csv(data, pipeline.spec, item.key)
    return _image(data, pipeline, item.key)


def _image(data: bytes, pipeline: Pipeline, key: str) -> pl.DataFrame:
    import polars as pl

    from ml_control.core.images import audit_row

    row = audit_row(data, pipeline.spec.source.image, key)
    return pl.DataFrame(
        {
            pipeline.spec.columns.target: [label_of(key)],
            "width": [row.width],
            "height": [row.height],
            "brightness": [row.brightness],
            "contrast": [row.contrast],
            "pixels": pl.Series([list(row.pixels)], dtype=pl.Array(pl.UInt8, len(row.pixels))),
        }
    )


def read_objects(
    lake: Lake, pipeline: Pipeline, objects: Iterable[ObjectRef]
) -> list[tuple[ObjectRef, pl.DataFrame]]:
    """The rows of every object of a manifest. Raises as :func:`read_object` does."""
    return [(item, read_object(lake, pipeline, item)) for item in objects]


def concat(frames: list[pl.DataFrame], pipeline: Pipeline) -> pl.DataFrame:
    """One frame from many; with none, an empty one with the pipeline's columns."""
    import polars as pl

    if frames:
        return pl.concat(frames)
    columns = pipeline.spec.columns
    target = pl.Float64 if columns.task == "regression" else pl.String
    if pipeline.spec.source.format == "images":
        image = pipeline.spec.source.image
        size = image.height * image.width * (1 if image.mode == "grey" else 3)
        return pl.DataFrame(
            schema={
                columns.target: target,
                "width": pl.Int64,
                "height": pl.Int64,
                "brightness": pl.Float64,
                "contrast": pl.Float64,
                "pixels": pl.Array(pl.UInt8, size),
            }
        )
    features = {f.name: pl.Float64 if f.type == "number" else pl.String for f in columns.features}
    return pl.DataFrame(schema={**features, columns.target: target})
