"""From word of an object to the ledger, and from the ledger to the partitions that need a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ml_control.core.digests import canonical
from ml_control.core.partitions import is_future, place
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event, Request
from ml_control.errors import BadObject, Conflict
from ml_control.platform import Platform
from ml_control.ports import Notice

BATCH = 5000


@dataclass(frozen=True)
class Intake:
    """What one pass over the arrivals did."""

    seen: int
    recorded: int
    refused: int


@dataclass(frozen=True)
class Wanted:
    """A partition that needs an ingest run now, and the run's deduplication key."""

    partition: str
    run_key: str
    attempt: int
    because: str


def take_in(platform: Platform, pipeline: Pipeline, *, settle: float | None = None) -> Intake:
    """Record everything that arrived, durably, before acknowledging it at its source.

    Another process doing the same at this moment is left to it.
    """
    notifications = platform.notifications
    wait = pipeline.spec.source.settle if settle is None else settle
    try:
        with notifications.exclusive(pipeline.name):
            notices = notifications.receive(pipeline.name, wait, BATCH)
            if not notices:
                return Intake(0, 0, 0)
            events = [_event(pipeline, notice) for notice in notices]
            recorded = platform.registry.ledger.record(
                pipeline.name, events, [notice.fresh for notice in notices]
            )
            refused = [event for event in events if event.state == "quarantined"]
            for event in refused:
                quarantine(platform, event, event.reason or "")
            notifications.acknowledge(notices)
    except Conflict:
        return Intake(0, 0, 0)
    return Intake(len(notices), recorded, len(refused))


def ingest_files(
    platform: Platform, pipeline: Pipeline, files: list[Path], partition: str | None = None
) -> Intake:
    """Put files into the lake whole and record them; folders are walked for their files.

    Raises ``BadObject`` for a file that is not there, before any other is taken.
    """
    named: list[tuple[str, Path]] = []
    for file in files:
        if file.is_dir():
            below = sorted(item for item in file.rglob("*") if item.is_file())
            named += [(item.relative_to(file).as_posix(), item) for item in below]
        elif file.is_file():
            label = f"{file.parent.name}/" if pipeline.spec.source.format == "images" else ""
            named.append((f"{label}{file.name}", file))
        else:
            raise BadObject(str(file), "there is no such file", "name existing files or folders")
    notices = [
        platform.notifications.admit(
            pipeline.name, f"dt={partition}/{name}" if partition else _dated(name, file), file
        )
        for name, file in named
    ]
    events = [_event(pipeline, notice) for notice in notices]
    recorded = platform.registry.ledger.record(pipeline.name, events, [True] * len(events))
    refused = [event for event in events if event.state == "quarantined"]
    for event in refused:
        quarantine(platform, event, event.reason or "")
    return Intake(len(events), recorded, len(refused))


def _dated(name: str, file: Path) -> str:
    """The name below the innermost ``dt=`` folder of the file's own path, if it lies in one."""
    folders = [part for part in file.absolute().parent.parts if part.startswith("dt=")]
    if not folders or any(part.startswith("dt=") for part in PurePosixPath(name).parts):
        return name
    return f"{folders[-1]}/{name}"


def _event(pipeline: Pipeline, notice: Notice) -> Event:
    partition, reason = "unplaced", notice.refused
    try:
        partition = place(notice.key, notice.at, pipeline.spec.source.partition)
        if not reason:
            _fits(pipeline, notice.key)
    except BadObject as error:
        reason = reason or f"{error.reason}; {error.next}"
    return Event(
        pipeline=pipeline.name,
        partition=partition,
        bucket=notice.bucket,
        key=notice.key,
        version=notice.version,
        size=notice.size,
        path=notice.path,
        state="quarantined" if reason else "pending",
        reason=reason or None,
    )


def _fits(pipeline: Pipeline, key: str) -> None:
    if pipeline.spec.source.format == "images" and not label_of(key):
        raise BadObject(
            key, "has no label folder", "put images into <label>/<file>, e.g. cat/001.png"
        )


def label_of(key: str) -> str:
    """The label of an image: the folder it lies in, unless that is the pipeline's or a date's."""
    parent = PurePosixPath(key).parent
    if len(parent.parts) <= 1 or parent.name.startswith("dt="):
        return ""
    return parent.name


def quarantine(
    platform: Platform, event: Event, reason: str, row: int | None = None, column: str | None = None
) -> str:
    """Keep why an object was set aside, under ``logs/<pipeline>/quarantine/``; gives the key."""
    key = f"logs/{event.pipeline}/quarantine/{event.partition}/{event.id}.json"
    record = {
        "reason": reason,
        "object": event.key,
        "version": event.version,
        "path": event.path,
        "row": row,
        "column": column,
    }
    platform.lake.put(key, canonical(record))
    return key


def wanted(platform: Platform, pipeline: Pipeline, *, in_flight: set[str]) -> list[Wanted]:
    """The partitions that need a run and have none, oldest first.

    Level-based: it looks at what is true now (open events, raw content not yet published or
    refused), so a lost tick, a crashed run or a wiped run history is made good by the next call.
    Each request is written down before it is returned; a partition whose runs keep dying is
    tried again with doubled waits and parked after ``max_attempts``.
    """
    registry, settings = platform.registry, platform.settings
    now = registry.clock()
    generation = _work(platform, pipeline)
    found: list[Wanted] = []
    for partition in sorted(generation):
        if partition in in_flight:
            continue
        if registry.leases.holder(pipeline.name, stage_of(partition)) is not None:
            continue
        last = registry.partitions.get(pipeline.name, partition).request
        work = f"{partition}:{generation[partition]}"
        same = last is not None and last.key == work
        attempt = last.attempt + 1 if last is not None and same else 1
        if last is not None and same:
            if now < last.at + settings.retry_seconds * 2 ** (last.attempt - 1):
                continue
            if attempt > settings.max_attempts:
                park(platform, pipeline, partition, last.attempt)
                continue
        request = Request(key=work, attempt=attempt, at=now)
        registry.partitions.update(
            pipeline.name,
            partition,
            lambda state, request=request: state.model_copy(update={"request": request}),  # type: ignore[misc]
        )
        new = generation[partition].startswith("e")
        because = "new objects" if new else "raw content not yet processed"
        again = f", attempt {attempt}" if attempt > 1 else ""
        found.append(Wanted(partition, f"{work}:{attempt}", attempt, because + again))
    return found


def _work(platform: Platform, pipeline: Pipeline) -> dict[str, str]:
    """Partitions with something to do, each with the name of what there is to do."""
    registry, by = platform.registry, pipeline.spec.source.partition.by
    newest: dict[str, int] = {}
    for event in registry.ledger.open_events(pipeline.name):
        newest[event.partition] = max(newest.get(event.partition, 0), event.seq)
    work = {partition: f"e{seq}" for partition, seq in newest.items()}
    for state in registry.partitions.stale(pipeline.name):
        work.setdefault(state.partition, f"r{state.raw.digest[:12] if state.raw else ''}")
    now = registry.clock()
    return {key: name for key, name in work.items() if not is_future(key, by, now)}


def partitions_with_work(platform: Platform, pipeline: Pipeline) -> set[str]:
    """Partitions whose day has come, with open events or content not yet processed."""
    return set(_work(platform, pipeline))


def park(platform: Platform, pipeline: Pipeline, partition: str, attempts: int) -> int:
    """Park a partition's open events after too many failed runs; ``replay`` takes them again."""
    ledger = platform.registry.ledger
    events = list(ledger.open_events(pipeline.name, partition))
    return ledger.move(events, "parked", f"{attempts} runs ended without taking it in")


def stage_of(partition: str) -> str:
    """The lease that covers one partition's data."""
    return f"partition {partition}"
