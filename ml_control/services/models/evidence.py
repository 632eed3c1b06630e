"""What the gates judge: the packaged bytes replayed in a fresh process, beside the champion."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ml_control.core.artifact import Finding, Inspection, inspect_archive
from ml_control.core.containers import Container, container
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Dataset, ModelVersion
from ml_control.errors import BadObject, NotProven, Retryable
from ml_control.platform import Platform
from ml_control.ports import TrainingResult
from ml_control.services.data.audit import quality_digest
from ml_control.services.models.channels import Channels, frames, write_test_features
from ml_control.services.models.selection import Selection

if TYPE_CHECKING:
    import numpy as np

    from ml_control.core.evidence import Contributions, Evidence, Groups
    from ml_control.core.features import FeatureSpec
    from ml_control.services.models.proving import Replay

ARCHIVE, FEATURES, GOLDEN = "model.tar.gz", "features.json", "golden.json"
_FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
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
    """Replay the packaged bytes in a fresh process and collect what the gates judge.

    What is wrong with the model is evidence. What may only be wrong with this machine at this
    moment is an error before anything is judged, because a verdict is kept for ever: raises
    ``Retryable`` when the replay was ended from outside or the machine too busy to time it.
    """
    import numpy as np

    from ml_control.core.evidence import DataCheck, Evidence
    from ml_control.core.features import FeatureSpec, csv_row
    from ml_control.core.metrics import watched

    lake, box, dataset = platform.lake, container(model.container), selection.dataset
    archive = lake.get(f"{model.prefix}/{ARCHIVE}")
    inspection = inspect_archive(archive, box, name=ARCHIVE)
    features = FeatureSpec.model_validate_json(lake.get(f"{model.prefix}/{FEATURES}"))
    golden = json.loads(lake.get(f"{model.prefix}/{GOLDEN}"))
    encoded = [csv_row(features.encode_record(record)) for record in golden["records"]]
    findings = list(inspection.findings)
    replayed: Replay | None = None
    champion_predictions, champion_problem = None, ""
    with tempfile.TemporaryDirectory(prefix="ml-control-proof-") as folder:
        rows = Path(folder) / "golden.csv"
        rows.write_text("\n".join(golden["rows"]) + "\n", "utf-8")
        if inspection.model is not None and not findings:
            inputs = {
                "golden": rows,
                "validation": channels.features("validation"),
                "test": channels.features("test"),
            }
            replayed = _replayed(inspection, box, inputs, findings)
        observed = replayed.predictions if replayed is not None else {}
        if champion is not None and champion != model.version:
            champion_predictions, champion_problem = _champion(
                platform, pipeline, dataset, champion, features.labels, Path(folder)
            )
        elif champion == model.version:
            champion_predictions = observed.get("test")
    limit = pipeline.spec.gates.latency_p99
    latency = None
    if replayed is not None:
        latency = timed(replayed, limit * 1000.0 if limit else None, model.version)
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
        for part, audit in zip(dataset.parts, selection.audits, strict=True)
    )
    return Evidence(
        pipeline=pipeline.name,
        model_version=model.version,
        champion=champion,
        test_set=model.test_set,
        data_checks=checks,
        archive_findings=tuple(
            {"rule": f.rule, "object": f.object, "reason": f.reason} for f in findings
        ),
        golden_expected=_by_row(np.asarray(golden["predictions"], dtype=np.float32)),
        golden_observed=_by_row(observed.get("golden")),
        golden_encoded_equal=encoded == golden["rows"],
        watched_name=result.watched,
        watched_logged=result.watched_value,
        watched_rounding=result.rounding,
        watched_reproduced=reproduced,
        y_test=channels.target("test"),
        predictions_test=observed.get("test"),
        champion_predictions_test=champion_predictions,
        champion_problem=champion_problem,
        task=pipeline.spec.columns.task,
        labels=features.labels,
        archive_bytes=len(archive),
        latency_p99_ms=latency,
        groups=groups_of(platform, dataset, [one.column for one in pipeline.spec.gates.slices]),
        contributions=_contributions(replayed, features),
    )


def _replayed(
    inspection: Inspection, box: Container, inputs: dict[str, Path], findings: list[Finding]
) -> Replay | None:
    """What the archive's model answers; None, and a finding more, when it does not."""
    from ml_control.services.models.proving import replay

    try:
        return replay(inspection.model or b"", box, inputs, explain="test")
    except NotProven as error:
        _raise_if_transient(error)
        findings.append(Finding("does_not_answer", ARCHIVE, error.reason, error.next))
        return None


def _raise_if_transient(error: NotProven) -> None:
    """Raise ``Retryable`` when a replay was ended from outside: that says nothing of the model."""
    if error.detail.get("stage") == "timeout" or error.detail.get("signal") in _FROM_OUTSIDE:
        raise Retryable(
            f"replay of {error.object}", error.reason, "train again: the finished job is taken over"
        ) from error


def timed(replayed: Replay, limit: float | None, version: str) -> float:
    """The time of one row in milliseconds, at the 99th percentile.

    Raises ``Retryable`` when it is above the limit only because the processor was busy with
    other work: the model itself needs no longer than allowed.
    """
    found = replayed.latency_p99_ms
    if limit is not None and replayed.latency_cpu_p99_ms <= limit < found:
        raise Retryable(
            f"model {version[:12]}",
            f"its latency cannot be judged: one row waited {found:.3g} ms for a result of "
            f"{replayed.latency_cpu_p99_ms:.3g} ms of work, because the machine was busy",
            "train again when the machine is less busy; the finished training job is taken over",
        )
    return found


def groups_of(platform: Platform, dataset: Dataset, columns: Sequence[str]) -> dict[str, Groups]:
    """The levels of these columns for the test rows, in the order of the test features."""
    import numpy as np
    import polars as pl

    from ml_control.core.evidence import Groups

    wanted = list(dict.fromkeys(columns))
    if not wanted:
        return {}
    parts = [
        frame.filter(frame["split"] == "test").select(pl.col(wanted).cast(pl.String))
        for frame in frames(platform, dataset)
    ]
    table = pl.concat(parts)
    found: dict[str, Groups] = {}
    for name in wanted:
        known: list[str | None] = sorted(table[name].drop_nulls().unique().to_list())
        code = {level: number for number, level in enumerate([*known, None])}
        codes = np.fromiter((code[level] for level in table[name]), np.int32, table.height)
        found[name] = Groups((*known, None), codes)
    return found


def _contributions(replayed: Replay | None, features: FeatureSpec) -> Contributions | None:
    from ml_control.core.evidence import Contributions

    if replayed is None or replayed.contributions is None or replayed.contributions_rows is None:
        return None
    sources = tuple(one.name for one in features.features for _ in one.columns)
    first = features.features[0]
    image = None
    if first.kind == "image":
        image = (first.height, first.width, 1 if first.mode == "grey" else 3)
    return Contributions(replayed.contributions, replayed.contributions_rows, sources, image)


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
    from ml_control.services.models.proving import replay

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
        if isinstance(error, NotProven):
            _raise_if_transient(error)
        return None, f"it cannot predict the test rows: {error.object}: {error.reason}"
    return predictions, ""
