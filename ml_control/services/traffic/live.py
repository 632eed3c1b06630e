"""Live requests as a table, and what a model's live requests are compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_control.core.digests import canonical
from ml_control.core.records import ModelVersion
from ml_control.core.tabular import category_cell, number_cell
from ml_control.errors import BadObject, MlControlError
from ml_control.platform import Platform
from ml_control.ports import Logged
from ml_control.services.data.drift import profile_of
from ml_control.services.traffic.log_files import json_list
from ml_control.spec import PipelineSpec

if TYPE_CHECKING:
    import polars as pl

    from ml_control.core.evidence import Evidence

PREDICTIONS = "predictions.json"


def keep_predictions(platform: Platform, model: ModelVersion, evidence: Evidence) -> None:
    """Keep how the model's answers to its test rows are distributed, beside its files.

    It is no part of the model version: a model without it is only not judged by it.
    """
    import numpy as np

    from ml_control.core.live import reference_predictions

    found = evidence.predictions_test
    if found is None or not len(found) or not np.isfinite(found).all():
        return
    summary = reference_predictions(found, evidence.labels, evidence.task)
    platform.lake.put(f"{model.prefix}/{PREDICTIONS}", canonical(summary))


def reference_of(platform: Platform, pipeline: str, model_version: str) -> dict[str, Any] | None:
    """The profile of a model's training data, with ``prediction`` of its answers to its test rows
    where those were kept. None when there is no such model or its data cannot be read.
    """
    try:
        model = platform.registry.models.get(pipeline, model_version)
        found = profile_of(platform, model.dataset)
    except (MlControlError, ValueError):
        return None
    try:
        kept = json.loads(platform.lake.get(f"{model.prefix}/{PREDICTIONS}"))
    except (MlControlError, ValueError):
        kept = None
    return {**found, "prediction": kept if isinstance(kept, dict) else None}


def records_frame(
    rows: Sequence[Logged], spec: PipelineSpec
) -> tuple[pl.DataFrame, pl.Series, pl.Series]:
    """The captured records by declared column, and score and label of every answer.

    A value that cannot be read counts as missing, as it does for the model's own features.
    """
    import polars as pl

    scores: list[float | None] = []
    labels: list[str | None] = []
    records: list[Any] = []
    for row in rows:
        for answer in json_list(row.prediction.answers):
            score = answer.get("score") if isinstance(answer, dict) else None
            label = answer.get("label") if isinstance(answer, dict) else None
            scores.append(float(score) if isinstance(score, int | float) else None)
            labels.append(None if label is None else str(label))
        records += json_list(row.prediction.records)
    records = [one for one in records if isinstance(one, dict)]
    frame = _statistics(records, spec) if spec.source.format == "images" else _table(records, spec)
    return (
        frame,
        pl.Series("score", scores, dtype=pl.Float64()),
        pl.Series("label", labels, dtype=pl.String()),
    )


def _table(records: Sequence[dict[str, Any]], spec: PipelineSpec) -> pl.DataFrame:
    import polars as pl

    missing = frozenset(spec.source.missing)
    # A masked column was never kept: it has no distribution, rather than one of missing values.
    columns = [one for one in spec.columns.features if one.name not in spec.log.mask]
    series = []
    for column in columns:
        name, values = column.name, []
        for record in records:
            try:
                values.append(
                    number_cell(record.get(name), missing)
                    if column.type == "number"
                    else category_cell(record.get(name), missing)
                )
            except ValueError:
                values.append(None)
        kind = pl.Float64() if column.type == "number" else pl.String()
        series.append(pl.Series(name, values, dtype=kind))
    return pl.DataFrame(series)


def _statistics(records: Sequence[dict[str, Any]], spec: PipelineSpec) -> pl.DataFrame:
    """Brightness and contrast of images, as in the profile of their training data."""
    import numpy as np
    import polars as pl

    from ml_control.core.kinds import ImageFeature

    feature = ImageFeature(**spec.source.image.model_dump())
    found: list[tuple[float | None, float | None]] = []
    for record in records:
        if not record:  # masked
            continue
        try:
            pixels = np.asarray(feature.samples(record))
        except BadObject:
            found.append((None, None))
            continue
        found.append((float(pixels.mean()), float(pixels.std())))
    return pl.DataFrame(
        found, schema={"brightness": pl.Float64(), "contrast": pl.Float64()}, orient="row"
    )
