"""raw and processed: admit objects, then write, audit and only then publish."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ml_control.core.digests import canonical, sha256
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import (
    Audit,
    CheckOutcome,
    Event,
    EventState,
    FileRef,
    ObjectRef,
    PartitionState,
    ProcessedManifest,
    Published,
    RawManifest,
)
from ml_control.errors import BadObject, NotProven, Retryable
from ml_control.platform import Platform
from ml_control.services.intake import quarantine, stage_of
from ml_control.services.objects import concat, read_object, read_objects

if TYPE_CHECKING:
    import polars as pl

MAX_REASON = 1000


@dataclass(frozen=True)
class Admitted:
    """What materialising ``raw`` did for one partition."""

    manifest: RawManifest
    path: str
    claimed: int
    quarantined: dict[str, str]  # object key -> reason
    superseded: int
    checks: tuple[CheckOutcome, ...] = field(default=())


@dataclass(frozen=True)
class Processed:
    """What materialising ``processed`` did: the audit, and the manifest if it was published."""

    audit: Audit
    manifest: ProcessedManifest
    path: str
    published: bool


def admit(platform: Platform, pipeline: Pipeline, partition: str, run: str) -> Admitted:
    """Take the partition's open events, parse what they point at, publish the raw manifest.

    The newest version of each key wins; an unusable one is quarantined and the version before
    it stays. Raises ``Conflict`` while another run holds the partition, ``BadObject`` when
    ``source.on_bad_object`` is ``fail``.
    """
    registry, lake = platform.registry, platform.lake
    with registry.leases.hold(pipeline.name, stage_of(partition), run) as lease:
        state = registry.partitions.get(pipeline.name, partition)
        before = load_raw(platform, state)
        objects = {item.key: item for item in before.objects} if before else {}
        rows: dict[str, pl.DataFrame] = {}
        claim = registry.ledger.claim(pipeline.name, partition, run)
        outcomes: dict[str, tuple[EventState, str | None]] = {}
        quarantined: dict[str, str] = {}
        for event in sorted(claim, key=lambda event: event.seq):
            outcomes[event.id] = _consider(platform, pipeline, event, objects, rows, quarantined)
        # What stays is read after what is new, so that landing a damaged object again heals it.
        for key, item in objects.items():
            if key not in rows:
                rows[key] = read_object(lake, pipeline, item)
        current = {(item.key, item.version) for item in objects.values()}
        for event in claim:
            if outcomes[event.id][0] == "done" and (event.key, event.version) not in current:
                outcomes[event.id] = ("superseded", "a newer version of the object was taken")
        manifest = RawManifest(
            pipeline=pipeline.name,
            partition=partition,
            objects=tuple(objects[key] for key in sorted(objects)),
        )
        path = raw_manifest_path(pipeline.name, partition, manifest.digest)
        lake.put(path, canonical(manifest.to_json()))
        published = Published(
            digest=manifest.digest,
            path=path,
            rows=manifest.rows,
            at=registry.clock(),
            run=run,
        )
        registry.partitions.update(
            pipeline.name,
            partition,
            lambda now: now.model_copy(update={"raw": published}),
            registry.leases.fence(lease),
        )
        registry.ledger.settle(claim, lambda event: outcomes[event.id])
        frame = concat([rows[item.key] for item in manifest.objects], pipeline)
        checks = _raw_checks(pipeline, frame, quarantined)
    return Admitted(
        manifest=manifest,
        path=path,
        claimed=len(claim.events),
        quarantined=quarantined,
        superseded=sum(state == "superseded" for state, _ in outcomes.values()),
        checks=checks,
    )


def _consider(
    platform: Platform,
    pipeline: Pipeline,
    event: Event,
    objects: dict[str, ObjectRef],
    rows: dict[str, pl.DataFrame],
    quarantined: dict[str, str],
) -> tuple[EventState, str | None]:
    """Put one event's object among the partition's, or say why not."""
    known = objects.get(event.key)
    if known is not None and known.version == event.version:
        # Put again, or a run died between publishing the manifest and acknowledging.
        objects[event.key] = known.model_copy(update={"seq": max(known.seq, event.seq)})
        return "done", None
    if known is not None and known.seq > event.seq:
        return "superseded", "a newer version of the object was taken"
    try:
        frame = read_object(platform.lake, pipeline, event)
    except Retryable:
        return "pending", None  # not in the lake yet: a later run takes it
    except BadObject as error:
        if error.detail.get("changed"):
            return _record_again(platform, event)
        if pipeline.spec.source.on_bad_object == "fail":
            raise
        row, column = error.detail.get("row"), error.detail.get("column")
        column = column[:MAX_REASON] if column else column
        where = "".join(
            f", {name} {value}" for name, value in (("row", row), ("column", column)) if value
        )
        said = f"{error.reason[:MAX_REASON]}{where[:MAX_REASON]}"  # a cell may be megabytes
        quarantine(platform, event, error.reason[:MAX_REASON], row, column)
        quarantined[event.key] = said
        return "quarantined", said
    rows[event.key] = frame
    objects[event.key] = ObjectRef(
        key=event.key,
        version=event.version,
        path=event.path,
        size=event.size,
        rows=frame.height,
        seq=event.seq,
    )
    return "done", None


def _record_again(platform: Platform, event: Event) -> tuple[EventState, str | None]:
    """Take bytes that a slow writer changed after they were recorded as the version they are now.

    The path stays: if the writer is still at it, the next run finds that out the same way.
    """
    data = platform.lake.get(event.path)
    fresh = Event(
        pipeline=event.pipeline,
        partition=event.partition,
        bucket=event.bucket,
        key=event.key,
        version=sha256(data),
        size=len(data),
        path=event.path,
    )
    platform.registry.ledger.record(event.pipeline, [fresh], [True])
    return "superseded", f"its bytes changed after it was recorded; now {fresh.version[:12]}"


def _raw_checks(
    pipeline: Pipeline, frame: pl.DataFrame, quarantined: dict[str, str]
) -> tuple[CheckOutcome, ...]:
    from ml_control.services.audit import SuiteCheck

    suite = SuiteCheck(pipeline.suite, name=pipeline.name)
    suite.add(frame)
    shown = dict(list(quarantined.items())[:20])
    count = len(quarantined)
    readable = CheckOutcome(
        name="objects_readable",
        passed=not quarantined,
        reason=f"{count} objects were quarantined" if count else "every object was readable",
        details={"quarantined": count, "examples": shown},
    )
    return (readable, suite.outcome())


def process(platform: Platform, pipeline: Pipeline, partition: str, run: str) -> Processed:
    """Stage the partition's typed rows, audit the staged files, publish only if they pass.

    A failed audit is recorded and leaves the manifest before it in place; the caller decides
    how to report it. Raises ``NotProven`` when nothing was admitted, ``Conflict`` while another
    run holds the partition.
    """
    registry = platform.registry
    with registry.leases.hold(pipeline.name, stage_of(partition), run) as lease:
        state = registry.partitions.get(pipeline.name, partition)
        raw = load_raw(platform, state)
        if raw is None:
            raise NotProven(
                f"{pipeline.name} partition {partition}",
                "nothing was admitted to it yet",
                f"put files into landing/{pipeline.name}/dt={partition}/ and materialise raw",
            )
        parts = read_objects(platform.lake, pipeline, raw.objects)
        manifest = _stage(platform, pipeline, raw, parts)
        audit = _audit(platform, pipeline, manifest, run)
        path = f"{_prefix(manifest)}/manifest.json"
        fence = registry.leases.fence(lease)
        if not audit.passed:
            registry.partitions.update(
                pipeline.name,
                partition,
                lambda now: now.model_copy(update={"refused": audit}),
                fence,
            )
            return Processed(audit, manifest, path, published=False)
        platform.lake.put(path, canonical(manifest.to_json()))
        published = Published(
            digest=manifest.digest, path=path, rows=manifest.rows, at=audit.at, run=run
        )

        def publish(now: PartitionState) -> PartitionState:
            return now.model_copy(
                update={
                    "processed": published,
                    "processed_from": raw.digest,
                    "audit": audit,
                    "refused": None,
                }
            )

        registry.partitions.update(pipeline.name, partition, publish, fence)
        return Processed(audit, manifest, path, published=True)


def _stage(
    platform: Platform,
    pipeline: Pipeline,
    raw: RawManifest,
    parts: Sequence[tuple[ObjectRef, pl.DataFrame]],
) -> ProcessedManifest:
    """Write the partition's Parquet under a name that nothing refers to yet."""
    import polars as pl

    from ml_control.core.dataset import assign_split, content_hash, hash_bytes, row_ids
    from ml_control.core.profile import Profiler

    frame = concat([part for _, part in parts], pipeline)
    ids = [row_id for item, part in parts for row_id in row_ids(item.version, part.height)]
    if pipeline.spec.source.format == "images":
        hashes = hash_bytes([row.tobytes() for row in frame["pixels"].to_numpy()])
    else:
        # Features only: equal rows stay on one side of the split whatever their labels say.
        hashes = content_hash(frame, [f.name for f in pipeline.spec.columns.features])
    split = assign_split(hashes, pipeline.spec.training.split)
    frame = frame.with_columns(
        pl.Series("row_id", ids, dtype=pl.String), pl.Series("split", split, dtype=pl.String)
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=True)
    data = buffer.getvalue()
    digest = sha256(data)
    path = f"processed/{raw.pipeline}/dt={raw.partition}/{digest[:16]}/part-0.parquet"
    platform.lake.put(path, data)
    profiler = Profiler(pipeline.spec)
    profiler.add(frame)
    counts = {name: int((frame["split"] == name).sum()) for name in ("train", "validation", "test")}
    return ProcessedManifest(
        pipeline=raw.pipeline,
        partition=raw.partition,
        raw_digest=raw.digest,
        transform_digest=pipeline.transform_digest,
        files=(FileRef(path=path, digest=digest, size=len(data), rows=frame.height),),
        rows=frame.height,
        splits=counts,
        profile=profiler.result(),
    )


def _audit(platform: Platform, pipeline: Pipeline, manifest: ProcessedManifest, run: str) -> Audit:
    """Run the checks on the bytes that were staged, not on what was in memory."""
    from ml_control.services.audit import Auditor, quality_digest
    from ml_control.services.drift import drift_reference

    auditor = Auditor(pipeline.spec, pipeline.suite, drift_reference(platform, pipeline))
    for file in manifest.files:
        auditor.add(read_parquet(platform, file))
    checks = auditor.outcomes()
    return Audit(
        raw_digest=manifest.raw_digest,
        data_digest=manifest.digest,
        quality_digest=quality_digest(pipeline.spec, pipeline.suite),
        passed=not any(check.refuses for check in checks),
        checks=checks,
        at=platform.registry.clock(),
        run=run,
    )


def read_parquet(platform: Platform, file: FileRef) -> pl.DataFrame:
    """A processed file, its bytes checked against the manifest. Raises ``BadObject``."""
    import polars as pl

    return pl.read_parquet(io.BytesIO(platform.lake.verified(file.path, file.digest)))


def raw_manifest_path(pipeline: str, partition: str, digest: str) -> str:
    """Where the raw manifest of this digest lies."""
    return f"raw/{pipeline}/_manifests/{partition}/{digest[:16]}.json"


def load_raw(platform: Platform, state: PartitionState) -> RawManifest | None:
    """The partition's published raw manifest. Raises ``BadObject`` if it was tampered with."""
    if state.raw is None:
        return None
    manifest = RawManifest.model_validate_json(platform.lake.get(state.raw.path))
    if manifest.digest != state.raw.digest:
        raise _not_as_published(state.raw.path)
    return manifest


def load_processed(platform: Platform, path: str, digest: str) -> ProcessedManifest:
    """A published processed manifest. Raises ``BadObject`` if it was tampered with."""
    manifest = ProcessedManifest.model_validate_json(platform.lake.get(path))
    if manifest.digest != digest:
        raise _not_as_published(path)
    return manifest


def _not_as_published(path: str) -> BadObject:
    return BadObject(
        path, "is not the manifest that was published", "restore the object from a backup"
    )


def _prefix(manifest: ProcessedManifest) -> str:
    return manifest.files[0].path.rpartition("/")[0]
