"""From word of an object to the ledger, and from the ledger to the partitions that need a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ml_control.core.digests import canonical
from ml_control.core.partitions import is_future, is_known, place
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event, PartitionState, Request
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


@dataclass(frozen=True)
class Work:
    """What there is to do in a partition: its name, by which attempts are counted, and why."""

    key: str
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
                pipeline.name,
                events,
                [notice.fresh for notice in notices],
                [notice.taken_at for notice in notices],
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
    keys = [f"dt={partition}/{name}" if partition else _dated(name, file) for name, file in named]
    if twice := sorted(key for key, count in Counter(keys).items() if count > 1):
        raise BadObject(
            twice[0],
            "two of the files would get this name, and one would replace the other",
            "put them into dt=<day>/ folders, or rename one",
        )
    notices = [
        platform.notifications.admit(pipeline.name, key, file)
        for key, (_, file) in zip(keys, named, strict=True)
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


def wanted(
    platform: Platform, pipeline: Pipeline, *, in_flight: set[str], limit: int
) -> list[Wanted]:
    """Up to ``limit`` partitions that need a run and have none, oldest first.

    Level-based: it looks at what is true now (open events, raw content not yet published or
    refused), so a lost tick, a crashed run or a wiped run history is made good by the next call.
    Each request is written down before it is returned; a partition whose runs keep dying is
    tried again with doubled waits and parked after ``max_attempts``.
    """
    registry = platform.registry
    now = registry.clock()
    work = _work(platform, pipeline)
    found: list[Wanted] = []
    for partition, what in sorted(work.items()):
        if len(found) >= limit:
            break
        busy = registry.leases.holder(pipeline.name, stage_of(partition)) is not None
        if partition in in_flight or busy:
            continue
        if not is_known(partition, pipeline.spec.source.partition):
            park(platform, pipeline, partition, "the pipeline file has no such partition any more")
            continue
        last = registry.partitions.get(pipeline.name, partition).request
        attempt = last.attempt + 1 if last is not None and last.key == what.key else 1
        if _used_up(platform, last, what):
            park(platform, pipeline, partition, f"{attempt - 1} runs ended without taking it in")
            continue
        if attempt > 1 and last is not None and not _due(platform, last, now):
            continue
        request = Request(key=what.key, attempt=attempt, at=now)
        registry.partitions.update(pipeline.name, partition, _asked(request))
        again = f", attempt {attempt}" if attempt > 1 else ""
        found.append(Wanted(partition, f"{what.key}:{attempt}", attempt, what.because + again))
    return found


def _asked(request: Request) -> Callable[[PartitionState], PartitionState]:
    return lambda state: state.model_copy(update={"request": request})


def _due(platform: Platform, last: Request, now: float) -> bool:
    """Whether the wait is over; a request from the future means that the clock was set back."""
    wait = platform.settings.retry_seconds * 2 ** (last.attempt - 1)
    return now >= last.at + wait or last.at > now


def _used_up(platform: Platform, last: Request | None, what: Work) -> bool:
    used = last is not None and last.key == what.key
    return used and last is not None and last.attempt >= platform.settings.max_attempts


def _work(platform: Platform, pipeline: Pipeline) -> dict[str, Work]:
    """Partitions whose day has come, with what there is to do in each."""
    registry, by = platform.registry, pipeline.spec.source.partition.by
    newest: dict[str, int] = {}
    for event in registry.ledger.open_events(pipeline.name):
        newest[event.partition] = max(newest.get(event.partition, 0), event.seq)
    work = {key: Work(f"{key}:e{seq}", "new objects") for key, seq in newest.items()}
    for state in registry.partitions.stale(pipeline.name):
        digest = state.raw.digest[:12] if state.raw else ""
        what = Work(f"{state.partition}:r{digest}", "raw content not yet processed")
        work.setdefault(state.partition, what)
    now = registry.clock()
    return {key: what for key, what in work.items() if not is_future(key, by, now)}


def partitions_with_work(platform: Platform, pipeline: Pipeline) -> set[str]:
    """Partitions whose day has come, with open events or content not yet processed."""
    return set(_work(platform, pipeline))


def given_up(platform: Platform, pipeline: Pipeline) -> set[str]:
    """Partitions whose attempts are used up: a person looks, then ``replay`` tries again."""
    return {
        partition
        for partition, what in _work(platform, pipeline).items()
        if not is_known(partition, pipeline.spec.source.partition)
        or _used_up(
            platform, platform.registry.partitions.get(pipeline.name, partition).request, what
        )
    }


def park(platform: Platform, pipeline: Pipeline, partition: str, reason: str) -> int:
    """Park a partition's open events; ``replay`` takes them again."""
    ledger = platform.registry.ledger
    return ledger.move(list(ledger.open_events(pipeline.name, partition)), "parked", reason)


def replay(platform: Platform, pipeline: Pipeline, partition: str | None = None) -> set[str]:
    """Make parked events pending and forget used-up attempts; gives the partitions touched."""
    registry = platform.registry
    parked = list(registry.ledger.events(pipeline.name, partition, "parked"))
    registry.ledger.move(parked, "pending", None)
    touched = {event.partition for event in parked} | given_up(platform, pipeline)
    if partition is not None:
        touched &= {partition}
    for key in touched:
        registry.partitions.update(
            pipeline.name, key, lambda state: state.model_copy(update={"request": None})
        )
    return touched


def stage_of(partition: str) -> str:
    """The lease that covers one partition's data."""
    return f"partition {partition}"
