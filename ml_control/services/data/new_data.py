"""What was published that the newest model does not know: how many rows, and their drift."""

from __future__ import annotations

from dataclasses import dataclass

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import (
    CheckOutcome,
    DatasetPart,
    ModelVersion,
    PartitionState,
    Published,
    RawManifest,
)
from ml_control.core.retraining import Measured
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.services.data.dataset import load_processed, raw_manifest_path
from ml_control.services.models.selection import digest_of_states, published_states

_KEPT = 10_000  # answers that a process remembers: the largest window


@dataclass(frozen=True)
class NewData:
    """The dataset that training would use, against the one of the newest model."""

    digest: str | None
    rows: int  # that the model does not know
    first: float | None  # when the oldest published partition was
    last: float | None  # when the newest one was
    drift: Measured | None  # of the partitions that it does not know


def new_data(platform: Platform, pipeline: Pipeline, model: ModelVersion | None) -> NewData:
    """Read the published partitions; a manifest is read once for each version of a partition."""
    states = published_states(platform, pipeline)
    known = {part.partition: part for part in model.dataset.parts} if model else {}
    changed: list[PartitionState] = []
    rows, times = 0, []
    for state in states:
        published, part = state.processed, known.get(state.partition)
        if published is None:
            continue
        times.append(published.at)
        if part is None or part.digest != published.digest:
            changed.append(state)
            rows += _rows(platform, pipeline.name, state.partition, part, published)
    return NewData(
        digest=digest_of_states(pipeline.name, states),
        rows=rows,
        first=min(times, default=None),
        last=max(times, default=None),
        drift=_drift(pipeline, model, changed) if model else None,
    )


def _rows(
    platform: Platform, pipeline: str, partition: str, known: DatasetPart | None, now: Published
) -> int:
    """Rows of the objects that a partition did not have before: at least one, for it changed."""
    if known is None:
        return now.rows
    key = (pipeline, partition, known.path, known.digest, now.path, now.digest)
    if key not in _REMEMBERED:
        try:
            found = _counted(platform, pipeline, partition, known, now)
        except (MlControlError, ValueError):
            return now.rows  # which rows are new cannot be told
        if len(_REMEMBERED) >= _KEPT:
            _REMEMBERED.clear()
        _REMEMBERED[key] = found
    return _REMEMBERED[key]


_REMEMBERED: dict[tuple[str, ...], int] = {}  # named by digests: true for as long as they are


def _counted(
    platform: Platform, pipeline: str, partition: str, known: DatasetPart, now: Published
) -> int:
    before = load_processed(platform, known.path, known.digest)
    after = load_processed(platform, now.path, now.digest)
    if before.transform_digest != after.transform_digest:
        return now.rows  # split or read in another way: all of it is new
    old, new = (
        RawManifest.model_validate_json(
            platform.lake.get(raw_manifest_path(pipeline, partition, one.raw_digest))
        )
        for one in (before, after)
    )
    there = {(item.key, item.version) for item in old.objects}
    added = sum(item.rows for item in new.objects if (item.key, item.version) not in there)
    return max(1, min(added, now.rows))


def _drift(
    pipeline: Pipeline, model: ModelVersion, changed: list[PartitionState]
) -> Measured | None:
    """The farthest of these partitions from the newest model's data, as their audits found it."""
    bound = pipeline.spec.quality.drift.max_psi
    worst, column, where, beyond = 0.0, "", "", False
    for state in changed:
        check = _check(state)
        if check is None or "psi" not in check.details:
            continue
        drifted = bool(check.details.get("drifted"))
        found = {str(name): float(psi) for name, psi in check.details["psi"].items()}
        name = max(found, key=lambda one: found[one], default="")
        # What is beyond chance outranks a larger index that is not.
        if name and (drifted, found[name]) > (beyond, worst):
            worst, column, where, beyond = found[name], name, state.partition, drifted
    said = f"partition {where}: {column} has a PSI of {worst:.3g}" if where else "nothing drifted"
    return Measured(
        kind="partition drift",
        subject=model.version,
        value=worst,
        bound=bound,
        beyond=beyond,
        because=said,
        over=bound / 2,
        worst=column,
    )


def _check(state: PartitionState) -> CheckOutcome | None:
    checks = state.audit.checks if state.audit is not None else ()
    return next((check for check in checks if check.name == "drift"), None)
