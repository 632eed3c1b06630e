"""raw and processed: admit objects, then write, audit and only then publish."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from ml_control.core.ahead import one_ahead
from ml_control.core.digests import canonical
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
from ml_control.lake import Lake
from ml_control.platform import Platform
from ml_control.services.arrivals.intake import quarantine, stage_of
from ml_control.services.arrivals.leftovers import remove_leftovers
from ml_control.services.arrivals.objects import empty, verify
from ml_control.services.data.staging import Stage, parts_folder
from ml_control.services.data.staging import read_parquet as read_part

if TYPE_CHECKING:
    import polars as pl

    from ml_control.services.data.audit import SuiteCheck

MAX_REASON = 1000
_Manifest = TypeVar("_Manifest", RawManifest, ProcessedManifest)


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
        registry.partitions.begin(pipeline.name, partition, registry.clock())
        stage = Stage(lake, pipeline, partition)
        claim = registry.ledger.claim(pipeline.name, partition, run)
        outcomes: dict[str, tuple[EventState, str | None]] = {}
        quarantined: dict[str, str] = {}
        for event in sorted(claim, key=lambda event: event.seq):
            outcomes[event.id] = _consider(platform, pipeline, event, objects, stage, quarantined)
        current = {(item.key, item.version) for item in objects.values()}
        for event in claim:
            if outcomes[event.id][0] == "done" and (event.key, event.version) not in current:
                outcomes[event.id] = ("superseded", "a newer version of the object was taken")
        manifest = RawManifest(
            pipeline=pipeline.name,
            partition=partition,
            objects=tuple(objects[key] for key in sorted(objects)),
        )
        # Read before anything is published: what stays may have been damaged meanwhile.
        suite = _look_at(lake, pipeline, manifest, stage)
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
        checks = (_readable(quarantined), suite.outcome())
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
    stage: Stage,
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
        rows, digest = stage.take(event)
    except Retryable:
        return "pending", None  # not in the lake yet: a later run takes it
    except BadObject as error:
        if error.detail.get("changed") and event.version == event.content:
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
    objects[event.key] = ObjectRef(
        key=event.key,
        version=event.version,
        path=event.path,
        size=event.size,
        rows=rows,
        seq=event.seq,
        digest=digest,
    )
    return "done", None


def _record_again(platform: Platform, event: Event) -> tuple[EventState, str | None]:
    """Take bytes that a slow writer changed after they were recorded as the version they are now.

    The path stays: if the writer is still at it, the next run finds that out the same way.
    """
    digest, size = _measured(platform.lake, event.path)
    fresh = Event(
        pipeline=event.pipeline,
        partition=event.partition,
        bucket=event.bucket,
        key=event.key,
        version=digest,
        size=size,
        path=event.path,
    )
    platform.registry.ledger.record(event.pipeline, [fresh], [True])
    return "superseded", f"its bytes changed after it was recorded; now {fresh.version[:12]}"


def _measured(lake: Lake, key: str) -> tuple[str, int]:
    """SHA-256 and size of an object, without holding it."""
    digest, size = hashlib.sha256(), 0
    for chunk in lake.stream(key):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _look_at(lake: Lake, pipeline: Pipeline, manifest: RawManifest, stage: Stage) -> SuiteCheck:
    """Every object, new or not, is what was recorded; the suite sees the rows if there is one."""
    from ml_control.services.data.audit import SuiteCheck

    suite = SuiteCheck(pipeline.suite, name=pipeline.name)
    if pipeline.suite is None:
        verify(lake, [item for item in manifest.objects if not stage.has(item)])
        return suite
    suite.add(empty(pipeline))
    for frame in stage.rows(manifest.objects):
        suite.add(frame.drop("row_id"))
    return suite


def _readable(quarantined: dict[str, str]) -> CheckOutcome:
    shown = dict(list(quarantined.items())[:20])
    count = len(quarantined)
    return CheckOutcome(
        name="objects_readable",
        passed=not quarantined,
        reason=f"{count} objects were quarantined" if count else "every object was readable",
        details={"quarantined": count, "examples": shown},
    )


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
                f"put files into {platform.settings.door(pipeline.name)}/dt={partition}/ and "
                "materialise raw",
            )
        stage = Stage(platform.lake, pipeline, partition)
        try:
            files = stage.parts(raw.objects)
            manifest, audit = _examine(platform, pipeline, raw, tuple(files), run)
        finally:
            stage.forget(raw.objects)
        path = f"{_prefix(pipeline, manifest)}/manifest.json"
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
        remove_leftovers(platform.lake, parts_folder(pipeline, partition), manifest)
        return Processed(audit, manifest, path, published=True)


def _examine(
    platform: Platform, pipeline: Pipeline, raw: RawManifest, files: tuple[FileRef, ...], run: str
) -> tuple[ProcessedManifest, Audit]:
    """Profile and audit the parts as they were staged, read back one at a time."""
    from ml_control.core.profile import Profiler
    from ml_control.services.data.audit import Auditor, quality_digest
    from ml_control.services.data.drift import drift_reference

    profiler = Profiler(pipeline.spec)
    auditor = Auditor(pipeline.spec, pipeline.suite, drift_reference(platform, pipeline))
    splits = dict.fromkeys(("train", "validation", "test"), 0)
    for frame in one_ahead(read_part(platform.lake, file) for file in files):
        profiler.add(frame)
        auditor.add(frame)
        for name, count in frame["split"].value_counts().iter_rows():
            splits[name] += count
    manifest = ProcessedManifest(
        pipeline=raw.pipeline,
        partition=raw.partition,
        raw_digest=raw.digest,
        transform_digest=pipeline.transform_digest,
        files=files,
        rows=sum(file.rows for file in files),
        splits=splits,
        profile=profiler.result(),
    )
    checks = auditor.outcomes()
    audit = Audit(
        raw_digest=raw.digest,
        data_digest=manifest.digest,
        quality_digest=quality_digest(pipeline.spec, pipeline.suite),
        passed=not any(check.refuses for check in checks),
        checks=checks,
        at=platform.registry.clock(),
        run=run,
    )
    return manifest, audit


def read_parquet(platform: Platform, file: FileRef) -> pl.DataFrame:
    """A processed file, its bytes checked against the manifest. Raises ``BadObject``."""
    return read_part(platform.lake, file)


def raw_manifest_path(pipeline: str, partition: str, digest: str) -> str:
    """Where the raw manifest of this digest lies."""
    return f"raw/{pipeline}/_manifests/{partition}/{digest[:16]}.json"


def load_raw(platform: Platform, state: PartitionState) -> RawManifest | None:
    """The partition's published raw manifest. Raises ``BadObject`` if it was tampered with."""
    if state.raw is None:
        return None
    manifest = _parsed(RawManifest, platform, state.raw.path)
    if manifest.digest != state.raw.digest:
        raise _not_as_published(state.raw.path)
    return manifest


def load_processed(platform: Platform, path: str, digest: str) -> ProcessedManifest:
    """A published processed manifest. Raises ``BadObject`` if it was tampered with."""
    manifest = _parsed(ProcessedManifest, platform, path)
    if digest not in (manifest.digest, manifest.digest_of_files):
        raise _not_as_published(path)
    return manifest


def _parsed(kind: type[_Manifest], platform: Platform, path: str) -> _Manifest:
    try:
        return kind.model_validate_json(platform.lake.get(path))
    except ValidationError as error:
        raise _not_as_published(path) from error


def _not_as_published(path: str) -> BadObject:
    return BadObject(
        path, "is not the manifest that was published", "restore the object from a backup"
    )


def _prefix(pipeline: Pipeline, manifest: ProcessedManifest) -> str:
    return f"processed/{pipeline.name}/dt={manifest.partition}/{manifest.digest[:16]}"
