"""Which published data a model is trained on, and the proof that each part was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Audit, Dataset, DatasetPart, PartitionState
from ml_control.errors import NotProven
from ml_control.platform import Platform
from ml_control.services.data.audit import quality_digest
from ml_control.services.data.dataset import load_processed


@dataclass(frozen=True)
class Selection:
    """The dataset, the audit of each of its parts, and the partitions left out with the reason."""

    dataset: Dataset
    audits: tuple[Audit, ...]
    left_out: dict[str, str]


def select(platform: Platform, pipeline: Pipeline) -> Selection:
    """The newest published partitions of the training window, oldest first.

    A partition whose newest content failed its checks counts with the content published before
    it, or is left out if there is none. Raises ``NotProven`` when a part has no passing check of
    exactly its data version under the present quality configuration, when a part was processed
    under another split or source form than today's, or when nothing is left.
    """
    required = quality_digest(pipeline.spec, pipeline.suite)
    parts: list[tuple[DatasetPart, Audit]] = []
    left_out: dict[str, str] = {}
    for state in platform.registry.partitions.newest(pipeline.name):
        if len(parts) >= pipeline.spec.training.window.partitions:
            break
        if state.refused is not None and state.raw and state.refused.raw_digest == state.raw.digest:
            left_out[state.partition] = _why(state.refused)
        if state.processed is None or state.processed.rows == 0:
            left_out.setdefault(state.partition, "not processed yet")
            continue
        audit = _checked(platform, pipeline, state, required)
        part = DatasetPart(
            partition=state.partition,
            digest=state.processed.digest,
            path=state.processed.path,
            rows=state.processed.rows,
        )
        parts.append((part, audit))
    if not parts:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(left_out.items())[:5])
        raise NotProven(
            f"{pipeline.name} dataset",
            f"no partition passed its data checks ({reasons or 'none was processed'})",
            f"land good data in {platform.settings.door(pipeline.name)}, see "
            f"'ml-control events {pipeline.name}'",
        )
    parts.reverse()
    return Selection(
        dataset=Dataset(pipeline=pipeline.name, parts=tuple(part for part, _ in parts)),
        audits=tuple(audit for _, audit in parts),
        left_out=left_out,
    )


def published_digest(platform: Platform, pipeline: Pipeline) -> str | None:
    """The digest that :func:`select` would give, without judging the audits."""
    return digest_of_states(pipeline.name, published_states(platform, pipeline))


def published_states(platform: Platform, pipeline: Pipeline) -> list[PartitionState]:
    """The partitions that :func:`select` would take, newest first."""
    published = (
        state
        for state in platform.registry.partitions.newest(pipeline.name)
        if state.processed is not None and state.processed.rows
    )
    return list(islice(published, pipeline.spec.training.window.partitions))


def digest_of_states(pipeline: str, states: Sequence[PartitionState]) -> str | None:
    """The digest of a dataset of these partitions, newest first; None for none."""
    parts = [
        DatasetPart(
            partition=state.partition,
            digest=state.processed.digest,
            path=state.processed.path,
            rows=state.processed.rows,
        )
        for state in states
        if state.processed is not None
    ]
    if not parts:
        return None
    return Dataset(pipeline=pipeline, parts=tuple(reversed(parts))).digest


def _checked(platform: Platform, pipeline: Pipeline, state: PartitionState, required: str) -> Audit:
    audit = state.audit
    name = f"{pipeline.name} partition {state.partition}"
    again = f"run 'ml-control backfill {pipeline.name} --from {state.partition}'"
    if state.processed is None or audit is None or audit.data_digest != state.processed.digest:
        raise NotProven(name, "its published data has no recorded data check", again)
    if audit.quality_digest != required:
        raise NotProven(name, "was checked under an older quality configuration", again)
    if not audit.passed:
        raise NotProven(name, f"failed its data checks: {_why(audit)}", again)
    manifest = load_processed(platform, state.processed.path, state.processed.digest)
    if manifest.transform_digest != pipeline.transform_digest:
        # Two splits side by side would put equal rows into training and test.
        raise NotProven(name, "was processed under another split or source form", again)
    return audit


def _why(audit: Audit) -> str:
    failed = [f"{check.name}: {check.reason}" for check in audit.checks if check.refuses]
    return "; ".join(failed)
