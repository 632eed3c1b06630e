"""What the gates judge: the packaged bytes replayed in a fresh process, beside the champion."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ml_control.core.artifact import inspect_archive
from ml_control.core.containers import container
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Dataset, ModelVersion
from ml_control.errors import BadObject, NotProven
from ml_control.platform import Platform
from ml_control.ports import TrainingResult
from ml_control.services.audit import quality_digest
from ml_control.services.channels import Channels, write_test_features
from ml_control.services.selection import Selection

if TYPE_CHECKING:
    import numpy as np

    from ml_control.core.gates import Evidence

ARCHIVE, FEATURES, GOLDEN = "model.tar.gz", "features.json", "golden.json"
MODEL_FILES = (ARCHIVE, FEATURES, GOLDEN)


def gather(
    platform: Platform,
    pipeline: Pipeline,
    selection: Selection,
    model: ModelVersion,
    champion: str | None,
    channels: Channels,
    result: TrainingResult,
) -> Evidence:
    """Replay the packaged bytes in a fresh process and collect what the gates judge."""
    import numpy as np

    from ml_control.core.features import FeatureSpec, csv_row
    from ml_control.core.gates import DataCheck, Evidence
    from ml_control.core.metrics import watched
    from ml_control.services.proving import replay

    lake, box = platform.lake, container(model.container)
    inspection = inspect_archive(lake.get(f"{model.prefix}/{ARCHIVE}"), box, name=ARCHIVE)
    features = FeatureSpec.model_validate_json(lake.get(f"{model.prefix}/{FEATURES}"))
    golden = json.loads(lake.get(f"{model.prefix}/{GOLDEN}"))
    encoded = [csv_row(features.encode_record(record)) for record in golden["records"]]
    observed: dict[str, np.ndarray] = {}
    champion_predictions, champion_problem = None, ""
    with tempfile.TemporaryDirectory(prefix="ml-control-proof-") as folder:
        rows = Path(folder) / "golden.csv"
        rows.write_text("\n".join(golden["rows"]) + "\n", "utf-8")
        if inspection.model is not None and not inspection.findings:
            inputs = {
                "golden": rows,
                "validation": channels.features("validation"),
                "test": channels.features("test"),
            }
            observed = replay(inspection.model, box, inputs).predictions
        if champion is not None and champion != model.version:
            champion_predictions, champion_problem = _champion(
                platform, pipeline, selection.dataset, champion, features.labels, Path(folder)
            )
        elif champion == model.version:
            champion_predictions = observed.get("test")
    reproduced = None
    if "validation" in observed:
        # An archive whose answers are not finite reproduces nothing: the witness gate says no.
        with suppress(NotProven):
            reproduced = watched(
                result.watched,
                channels.target("validation"),
                observed["validation"],
                channels.weight(),
            )
    required = quality_digest(pipeline.spec, pipeline.suite)
    checks = tuple(
        DataCheck(
            partition=part.partition,
            data_digest=part.digest,
            audit=audit,
            quality_digest=required,
        )
        for part, audit in zip(selection.dataset.parts, selection.audits, strict=True)
    )
    return Evidence(
        pipeline=pipeline.name,
        model_version=model.version,
        champion=champion,
        test_set=model.test_set,
        data_checks=checks,
        archive_findings=tuple(
            {"rule": f.rule, "object": f.object, "reason": f.reason} for f in inspection.findings
        ),
        golden_expected=_by_row(np.asarray(golden["predictions"], dtype=np.float32)),
        golden_observed=_by_row(observed.get("golden")),
        golden_encoded_equal=encoded == golden["rows"],
        watched_name=result.watched,
        watched_logged=result.watched_value,
        watched_reproduced=reproduced,
        y_test=channels.target("test"),
        predictions_test=observed.get("test"),
        champion_predictions_test=champion_predictions,
        champion_problem=champion_problem,
        task=pipeline.spec.columns.task,
        labels=features.labels,
    )


def _by_row(predictions: np.ndarray | None) -> np.ndarray | None:
    """One row per record: a single output is kept as a column, whoever wrote it."""
    return None if predictions is None else predictions.reshape(len(predictions), -1)


def _champion(
    platform: Platform,
    pipeline: Pipeline,
    dataset: Dataset,
    champion: str,
    labels: tuple[str, ...],
    folder: Path,
) -> tuple[np.ndarray | None, str]:
    """The serving model's predictions on the same test rows, or why it cannot be compared."""
    from ml_control.core.artifact import unpack
    from ml_control.core.features import FeatureSpec
    from ml_control.services.proving import replay

    model = platform.registry.models.get(pipeline.name, champion)
    lake, box = platform.lake, container(model.container)
    features = FeatureSpec.model_validate_json(lake.get(f"{model.prefix}/{FEATURES}"))
    if features.labels != labels:
        return None, f"it answers for labels {features.labels}, the candidate for {labels}"
    rows = folder / "champion.csv"
    try:
        write_test_features(platform, dataset, features, rows)
        archive = lake.verified(f"{model.prefix}/{ARCHIVE}", model.files[ARCHIVE])
        predictions = replay(unpack(archive, box), box, {"test": rows}).predictions["test"]
    except (BadObject, NotProven) as error:
        return None, f"it cannot predict the test rows: {error.object}: {error.reason}"
    return predictions, ""
