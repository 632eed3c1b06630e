"""From the ledger to the partitions that need a run: which now, which later, and which no more."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ml_control.core.coalescing import Waiting, decide
from ml_control.core.partitions import is_future, is_known, place
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import PartitionState, Request
from ml_control.errors import BadObject
from ml_control.platform import Platform
from ml_control.services.alerts import NEVER_BEGAN, raise_alert, raise_parked
from ml_control.services.arrivals.intake import UNPLACED, stage_of

_LONGEST_WAIT = 300.0  # between two requests of which none began


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

    partition: str
    key: str
    because: str
    waiting: Waiting | None = None  # the open events, if there are any


@dataclass
class Plan:
    """The runs to ask for now, and why the other partitions with work have to wait."""

    wanted: list[Wanted] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)


def plan(platform: Platform, pipeline: Pipeline, *, in_flight: set[str], limit: int) -> Plan:
    """Up to ``limit`` partitions that need a run and have none, oldest first.

    Level-based: it looks at what is true now (open events, raw content not yet published or
    refused), so a lost tick, a crashed run or a wiped run history is made good by the next call.
    Each request is written down before it is returned. A partition is asked for when its burst
    is over; one whose runs keep dying is tried again with doubled waits and parked after
    ``max_attempts`` runs that began.
    """
    registry, source = platform.registry, pipeline.spec.source
    now, found = registry.clock(), Plan()
    for work in _work(platform, pipeline):
        partition = work.partition
        if work.waiting is not None:
            turn = decide(work.waiting, now, quiet=source.quiet, max_wait=source.max_wait)
            if not turn.due:
                found.waiting[partition] = turn.because
                continue
        if partition in in_flight or registry.leases.holder(pipeline.name, stage_of(partition)):
            found.waiting[partition] = "a run of it is under way"
            continue
        if work.waiting is not None and not registry.ledger.is_open(pipeline.name, partition):
            continue  # settled since its mark was made
        if not is_known(partition, source.partition):
            park(platform, pipeline, partition, "the pipeline file has no such partition any more")
            continue
        request = registry.partitions.get(pipeline.name, partition).request or Request(key="")
        if request.key != work.key:
            request = request.model_copy(update={"key": work.key, "attempt": 0})
        if request.attempt >= platform.settings.max_attempts:
            _give_up(platform, pipeline, work, request.attempt)
            continue
        if wait := _wait(platform, request, now):
            found.waiting[partition] = f"{_history(request)}; asked for again in {wait:.0f} s"
            continue
        if len(found.wanted) >= limit:
            found.waiting[partition] = "as many runs as allowed are under way (max_runs)"
            break  # what comes after it waits too
        found.wanted.append(_ask(platform, pipeline, work, request, now))
    return found


def _ask(platform: Platform, pipeline: Pipeline, work: Work, last: Request, now: float) -> Wanted:
    """Write a request down. Its run key is like no other: Dagster never runs a key again."""
    attempt = last.attempt + 1
    request = last.model_copy(update={"asked": last.asked + 1, "at": now})
    platform.registry.partitions.update(
        pipeline.name, work.partition, lambda state: state.model_copy(update={"request": request})
    )
    if request.asked >= NEVER_BEGAN:
        raise_alert(
            platform,
            pipeline.name,
            "not-beginning",
            work.partition,
            f"{request.asked} runs were asked for and none began",
            "see the daemon's log and the runs in Dagster",
        )
    because = work.because + (f", attempt {attempt}" if attempt > 1 else "")
    key = f"{work.key}:{attempt}:{secrets.token_hex(4)}"
    return Wanted(work.partition, key, attempt, because)


def _wait(platform: Platform, last: Request, now: float) -> float:
    """Seconds until the next request; a request from the future: the clock was set back."""
    first = platform.settings.retry_seconds
    if last.asked:
        wait = min(first * 2.0 ** min(last.asked - 1, 30), _LONGEST_WAIT)
    elif last.attempt:
        wait = first * 2.0 ** (last.attempt - 1)
    else:
        return 0.0
    return max(last.at + wait - now, 0.0) if last.at <= now else 0.0


def _history(last: Request) -> str:
    if last.asked:
        return f"{last.asked} runs were asked for and none began"
    return f"attempt {last.attempt} did not end well"


def _work(platform: Platform, pipeline: Pipeline) -> Iterator[Work]:
    """What there is to do in partitions whose day has come, oldest first."""
    registry, by = platform.registry, pipeline.spec.source.partition.by
    now = registry.clock()
    found: dict[str, Work] = {}
    for mark in registry.ledger.waiting(pipeline.name):
        if is_future(mark.partition, by, now):
            break  # sorted: those after it are to come too
        key = f"{mark.partition}:e{mark.newest}"
        found[mark.partition] = Work(mark.partition, key, "new objects", mark)
    for state in registry.partitions.stale(pipeline.name):
        if is_future(state.partition, by, now):
            break
        digest = state.raw.digest[:12] if state.raw else ""
        key = f"{state.partition}:r{digest}"
        work = Work(state.partition, key, "raw content not yet processed")
        found.setdefault(state.partition, work)
    yield from (found[partition] for partition in sorted(found))


def partitions_with_work(platform: Platform, pipeline: Pipeline) -> set[str]:
    """Partitions whose day has come, with open events or content not yet processed."""
    return {work.partition for work in _work(platform, pipeline)}


def waiting(platform: Platform, pipeline: Pipeline) -> list[dict[str, object]]:
    """Each partition with work: how many objects wait, and why no run was asked for yet."""
    source, now = pipeline.spec.source, platform.registry.clock()
    found: list[dict[str, object]] = []
    for work in _work(platform, pipeline):
        because, objects = work.because, 0
        if work.waiting is not None:
            objects = work.waiting.objects
            because = decide(
                work.waiting, now, quiet=source.quiet, max_wait=source.max_wait
            ).because
        found.append({"partition": work.partition, "objects": objects, "because": because})
    return found


def awaited(platform: Platform, pipeline: Pipeline) -> set[str]:
    """Partitions with work that will be done by itself: attempts are left."""
    works = list(_work(platform, pipeline))
    return {work.partition for work in works} - _given_up(platform, pipeline, works)


def given_up(platform: Platform, pipeline: Pipeline) -> set[str]:
    """Partitions whose attempts are used up: a person looks, then ``replay`` tries again."""
    return _given_up(platform, pipeline, _work(platform, pipeline))


def _given_up(platform: Platform, pipeline: Pipeline, works: Iterable[Work]) -> set[str]:
    found = set()
    for work in works:
        request = platform.registry.partitions.get(pipeline.name, work.partition).request
        used = request.attempt if request is not None and request.key == work.key else 0
        known = is_known(work.partition, pipeline.spec.source.partition)
        if not known or used >= platform.settings.max_attempts:
            found.add(work.partition)
    return found


def _give_up(platform: Platform, pipeline: Pipeline, work: Work, attempts: int) -> None:
    reason = f"{attempts} runs ended without taking it in"
    if work.waiting is not None:
        park(platform, pipeline, work.partition, reason)
        return
    raise_alert(
        platform,
        pipeline.name,
        "given-up",
        work.partition,
        f"{attempts} runs ended without processing it",
        f"see its runs in Dagster, then 'ml-control replay {pipeline.name}'",
    )


def park(platform: Platform, pipeline: Pipeline, partition: str, reason: str) -> int:
    """Park a partition's open events and alert; ``replay`` takes them again."""
    ledger = platform.registry.ledger
    parked = ledger.move(list(ledger.open_events(pipeline.name, partition)), "parked", reason)
    if parked:
        said = f"{parked} objects were parked: {reason}"
        raise_parked(platform, pipeline.name, partition, said)
    return parked


def replay(platform: Platform, pipeline: Pipeline, partition: str | None = None) -> set[str]:
    """Make parked events pending and forget used-up attempts; gives the partitions touched.

    Objects that belonged to no partition, and do under today's pipeline file, are taken too.
    """
    registry = platform.registry
    parked = list(registry.ledger.events(pipeline.name, partition, "parked"))
    registry.ledger.move(parked, "pending", None)
    touched = {event.partition for event in parked} | given_up(platform, pipeline)
    touched |= _place_again(platform, pipeline)
    if partition is not None:
        touched &= {partition}
    for key in touched:
        registry.partitions.update(pipeline.name, key, _forgotten)
    for alert in registry.alerts.open(pipeline.name):
        about = alert.key.partition("#")[2]
        if alert.kind in ("parked", "given-up", "not-beginning") and about in touched:
            registry.alerts.clear(alert)
    return touched


def _forgotten(state: PartitionState) -> PartitionState:
    return state.model_copy(update={"request": None})


def _place_again(platform: Platform, pipeline: Pipeline) -> set[str]:
    """Record quarantined objects in the partition that they have now, e.g. after a new start."""
    ledger, touched = platform.registry.ledger, set()
    for event in list(ledger.events(pipeline.name, UNPLACED, "quarantined")):
        if not event.path:
            continue  # it was no file, so there is nothing to take
        dated = event.key if "dt=" in event.key else event.path  # which has the day it was put
        try:
            at = event.recorded_at
            if "dt=" not in dated:
                at = platform.notifications.arrived(event.path) or at
            there = place(dated, at, pipeline.spec.source.partition)
        except BadObject:
            continue
        fresh = event.model_copy(update={"partition": there, "state": "pending", "reason": None})
        ledger.record(pipeline.name, [fresh], [True])
        ledger.move([event], "superseded", f"recorded in partition {there}")
        touched.add(there)
    return touched
