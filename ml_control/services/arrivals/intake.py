"""From word of an object to the ledger: recorded durably, placed, or set aside with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ml_control.core.digests import canonical
from ml_control.core.partitions import place
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event
from ml_control.errors import BadObject, Conflict
from ml_control.platform import Platform
from ml_control.ports import Notice
from ml_control.services.alerts import raise_parked
from ml_control.services.arrivals.ordering import in_order

ADMITTED_AT_ONCE = 200  # files put into the lake before the ledger hears of them
UNPLACED = "unplaced"  # the partition of objects that belong to none


@dataclass(frozen=True)
class Intake:
    """What one pass over the arrivals did."""

    seen: int
    recorded: int
    refused: int

    def __add__(self, other: Intake) -> Intake:
        return Intake(
            self.seen + other.seen, self.recorded + other.recorded, self.refused + other.refused
        )


def take_in(platform: Platform, pipeline: Pipeline, *, settle: float | None = None) -> Intake:
    """Record everything that arrived, durably, before acknowledging it at its source.

    Another process doing the same at this moment is left to it.
    """
    notifications = platform.notifications
    wait = pipeline.spec.source.settle if settle is None else settle
    try:
        with notifications.exclusive(pipeline.name):
            notices = notifications.receive(pipeline.name, wait, notifications.at_once)
            if not notices:
                return Intake(0, 0, 0)
            taken = record(platform, pipeline, notices)
            notifications.acknowledge(notices)
    except Conflict:
        return Intake(0, 0, 0)
    return taken


def record(platform: Platform, pipeline: Pipeline, notices: Sequence[Notice]) -> Intake:
    """Record what notices tell of, durably; what belongs nowhere is quarantined.

    What a person has to look at before it is taken is parked, with an alert.
    """
    events = [event_of(pipeline, notice) for notice in notices]
    numbers = None
    if not platform.notifications.ordered:
        events, numbers = in_order(platform, events)
    recorded = platform.registry.ledger.record(
        pipeline.name, events, [notice.fresh for notice in notices], numbers=numbers
    )
    refused = [event for event in events if event.state == "quarantined"]
    for event in refused:
        quarantine(platform, event, event.reason or "")
    for partition in {event.partition for event in events if event.state == "parked"}:
        _tell_of_parked(platform, pipeline, partition)
    return Intake(len(events), recorded, len(refused))


def _tell_of_parked(platform: Platform, pipeline: Pipeline, partition: str) -> None:
    events = platform.registry.ledger.events(pipeline.name, partition, "parked")
    event = next(events, None)  # none: the ledger had it already, in another state
    if event is not None:
        raise_parked(platform, pipeline.name, partition, f"objects were parked: {event.reason}")


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
    pairs = list(zip(keys, (file for _, file in named), strict=True))
    total = Intake(0, 0, 0)
    for start in range(0, len(pairs), ADMITTED_AT_ONCE):
        some = pairs[start : start + ADMITTED_AT_ONCE]
        admitted = [platform.notifications.admit(pipeline.name, key, file) for key, file in some]
        total += record(platform, pipeline, admitted)
    return total


def _dated(name: str, file: Path) -> str:
    """The name below the innermost ``dt=`` folder of the file's own path, if it lies in one."""
    folders = [part for part in file.absolute().parent.parts if part.startswith("dt=")]
    if not folders or any(part.startswith("dt=") for part in PurePosixPath(name).parts):
        return name
    return f"{folders[-1]}/{name}"


def event_of(pipeline: Pipeline, notice: Notice) -> Event:
    """The event of a notice, placed in its partition, or quarantined where it fits nowhere."""
    partition, reason = UNPLACED, notice.refused
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
        put=notice.put,
        digest=notice.digest,
        order=notice.order,
        state="quarantined" if reason else "parked" if notice.parked else "pending",
        reason=reason or notice.parked or None,
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


def stage_of(partition: str) -> str:
    """The lease that covers one partition's data."""
    return f"partition {partition}"
