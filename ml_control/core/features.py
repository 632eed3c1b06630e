"""From a typed table or a JSON record to the model's numbers, by one rule for both.

A ``FeatureSpec`` is part of the model: it is fixed when the training data is known, travels in
``features.json`` inside the archive and is used unchanged when serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ml_control.core.digests import digest_of
from ml_control.core.kinds import CategoryFeature, ImageFeature, NumberFeature, PlainNumbers
from ml_control.core.records import Record
from ml_control.core.rows import csv_lines, csv_row
from ml_control.core.tabular import refuse_unknown_keys
from ml_control.errors import BadObject, PlatformFailed
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

__all__ = [
    "MAX_ONEHOT",
    "CategoryFeature",
    "Feature",
    "FeatureSpec",
    "ImageFeature",
    "NumberFeature",
    "csv_lines",
    "csv_row",
    "fit",
]

MAX_ONEHOT = 32


Feature = Annotated[NumberFeature | CategoryFeature | ImageFeature, Field(discriminator="kind")]


class FeatureSpec(Record):
    """How records become rows of numbers, and how predictions become answers.

    ========================  ========================================================
    missing number            NaN
    number outside its range  NaN: such a value is more often a sentinel (-1, 999) than
                              a measurement; so is one that float32 cannot hold
    missing category          NaN in its whole block
    unseen category           zeros in its whole block (onehot), NaN (ordinal)
    category, <= 32 levels    onehot, levels sorted by name
    category, more levels     ordinal: 0 is the most frequent level
    image                     its samples, 0..255
    ========================  ========================================================

    ``labels`` is (negative, positive) for binary, sorted for multiclass, empty for regression.
    ``missing`` are the texts that mean a missing value in a record, ``ignore`` the keys that a
    record may have and that are not used.
    """

    task: Literal["binary", "multiclass", "regression"]
    labels: tuple[str, ...] = ()
    features: tuple[Feature, ...] = Field(min_length=1)
    missing: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns, in order."""
        return tuple(column for feature in self.features for column in feature.columns)

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return len(self.columns)

    @cached_property
    def digest(self) -> str:
        """Names this encoding."""
        return digest_of(self.to_json())

    def encode_frame(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        """The matrix of a typed table, float32, shape (rows, width).

        Numbers are numeric columns, categories String; an image is the column ``pixels``:
        Binary (uint8 samples) or a list or array of numbers. Raises ``BadObject`` when a column
        is not there or an image has another number of samples.
        """
        import numpy as np

        matrix = np.empty((frame.height, self.width), dtype=np.float32)
        at = 0
        for feature in self.features:
            if feature.name not in frame.columns:
                raise BadObject("table", f"column {feature.name!r} is missing", column=feature.name)
            end = at + len(feature.columns)
            matrix[:, at:end] = feature.block(frame[feature.name])
            at = end
        return matrix

    def encode_record(self, record: Mapping[str, Any]) -> list[float]:
        """One JSON record as *width* numbers, each exactly a float32; NaN where missing.

        Equal to :meth:`encode_frame` of the same record. For images the record is
        ``{"image": <base64 of PNG or JPEG>}`` or ``{"pixels": [...]}`` (0..255, flat or
        nested). Raises ``BadObject`` with ``column`` for an unknown key or a wrong value.
        """
        if self._plain is not None and (numbers := self._plain.cells(record)) is not None:
            return numbers
        first = self.features[0]
        if isinstance(first, ImageFeature):
            return first.samples(record)
        refuse_unknown_keys(record, self._names, self.ignore)
        values: list[float] = []
        for feature in self.features:
            if isinstance(feature, ImageFeature):
                continue  # an image is always the only feature
            try:
                values.extend(feature.cells(record.get(feature.name), self._missing))
            except ValueError as error:
                raise BadObject("record", f"{feature.name}: {error}", column=feature.name) from None
        return values

    @cached_property
    def _plain(self) -> PlainNumbers | None:
        """A shorter way for the records of a spec that has nothing but numbers."""
        numbers = [item for item in self.features if isinstance(item, NumberFeature)]
        return PlainNumbers(numbers) if 1 < len(numbers) == len(self.features) else None

    @cached_property
    def _names(self) -> dict[str, None]:
        return dict.fromkeys(feature.name for feature in self.features)

    @cached_property
    def _missing(self) -> frozenset[str]:
        return frozenset(self.missing)

    def encode_target(self, series: pl.Series) -> NDArray[np.float32]:
        """Targets as float32, shape (rows,): the label's place in ``labels``, or the value.

        Raises ``BadObject`` with ``row`` for a missing value or an unknown label.
        """
        import numpy as np
        import polars as pl

        if self.task == "regression":
            numbers = series.cast(pl.Float64).cast(pl.Float32)
            wrong = (~numbers.is_finite().fill_null(value=False)).arg_true()
            why = "is not a finite number"
        else:
            codes = {label: float(code) for code, label in enumerate(self.labels)}
            numbers = series.cast(pl.String).replace_strict(
                codes, default=None, return_dtype=pl.Float32
            )
            wrong = numbers.is_null().arg_true()
            why = f"is not one of the labels {', '.join(self.labels[:20])}"
        if len(wrong):
            row = int(wrong[0])
            raise BadObject(
                series.name or "target",
                f"row {row + 1}: {series[row]!r} {why}",
                "correct the data, or train anew on all labels",
                row=row + 1,
                column=series.name,
            )
        return np.asarray(numbers.to_numpy(), dtype=np.float32)

    def decode(self, prediction: Sequence[float]) -> dict[str, Any]:
        """One prediction as ``label``, ``score`` and ``probabilities``.

        binary: the score is the positive class's probability, the label positive from 0.5;
        multiclass: the first most probable label and its probability; regression: the value.
        Raises ``PlatformFailed`` when the number of values is wrong or one is not finite.
        """
        values = [float(value) for value in prediction]
        needed = len(self.labels) if self.task == "multiclass" else 1
        if len(values) != needed or not all(abs(value) < float("inf") for value in values):
            raise PlatformFailed(
                "model answer",
                f"a {self.task} prediction is {needed} finite numbers, not {values[:8]}",
                "verify the archive with `ml-control verify`",
            )
        if self.task == "regression":
            return {"label": None, "score": values[0], "probabilities": None}
        if self.task == "binary":
            values = [1.0 - values[0], values[0]]
            best, score = int(values[1] >= 0.5), values[1]
        else:
            best = max(range(needed), key=values.__getitem__)
            score = values[best]
        return {
            "label": self.labels[best],
            "score": score,
            "probabilities": dict(zip(self.labels, values, strict=True)),
        }


def fit(spec: PipelineSpec, profile: Mapping[str, Any]) -> FeatureSpec:
    """The encoding for a pipeline, from a (merged) profile of its training data.

    Raises ``BadObject`` when the data's labels do not fit the task.
    """
    columns = spec.columns
    features: list[NumberFeature | CategoryFeature | ImageFeature] = []
    if spec.source.format == "images":
        features.append(ImageFeature(**spec.source.image.model_dump()))
    for column in columns.features:
        if column.type == "number":
            features.append(NumberFeature(name=column.name, min=column.min, max=column.max))
        else:
            counts = profile["features"][column.name]["levels"]
            features.append(_fit_category(column.name, counts))
    return FeatureSpec(
        task=columns.task,
        labels=_fit_labels(spec, profile),
        features=tuple(features),
        missing=spec.source.missing,
        ignore=tuple(sorted({*columns.ignore, columns.target})),
    )


def _fit_category(name: str, counts: Mapping[str, int]) -> CategoryFeature:
    # Without any level a one-hot block would have no column to be missing in.
    if 0 < len(counts) <= MAX_ONEHOT:
        return CategoryFeature(name=name, levels=tuple(sorted(counts)), encoding="onehot")
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    return CategoryFeature(name=name, levels=tuple(ranked), encoding="ordinal")


def _fit_labels(spec: PipelineSpec, profile: Mapping[str, Any]) -> tuple[str, ...]:
    columns = spec.columns
    if columns.task == "regression":
        return ()
    found = sorted(profile["target"]["levels"])
    needed = "exactly two labels" if columns.task == "binary" else "at least two labels"
    fits = len(found) == 2 if columns.task == "binary" else len(found) >= 2
    if not fits or (columns.positive is not None and columns.positive not in found):
        wish = f", one of them {columns.positive!r}" if columns.positive is not None else ""
        raise BadObject(
            spec.name or "pipeline",
            f"task {columns.task} needs {needed}{wish}; column {columns.target!r} has "
            f"{len(found)}: {', '.join(found[:10])}",
            "correct the data, or columns.task and columns.positive in the pipeline file",
            column=columns.target,
        )
    if columns.positive is None:
        return tuple(found)
    return (next(label for label in found if label != columns.positive), columns.positive)
