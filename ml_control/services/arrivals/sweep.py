"""The slow look through the lake for objects that the ledger does not know.

Word of an object can be lost for good: a registry restored from an older backup, a process that
died between linking and recording and whose private folder was emptied by hand. The sweep goes
over the raw area path by path, a bounded number a tick, and records what it finds in the order in
which it arrived.
"""

from __future__ import annotations

from dataclasses import dataclass

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Event
from ml_control.errors import Conflict
from ml_control.platform import Platform
from ml_control.ports import Notice, Stored
from ml_control.registry.sweeps import SweepState
from ml_control.services.alerts import alert_refused, clear_alerts, raise_alert
from ml_control.services.arrivals.intake import event_of, quarantine

GRACE_SECONDS = 60.0  # what came to be there just now may be on its way into the ledger


@dataclass(frozen=True)
class Swept:
    """What one step of the sweep did."""

    looked: int = 0
    found: int = 0


def sweep(platform: Platform, pipeline: Pipeline) -> Swept:
    """Go one step further, if a pass is under way or due.

    At most ``sweep_objects`` objects are looked at. How far it came is in the registry, so that a
    restart neither repeats nor skips. Another process that takes files in is left alone.
    """
    name, settings, now = pipeline.name, platform.settings, platform.registry.clock()
    state, version = platform.registry.sweeps.get(name)
    if not state.under_way:
        # Below zero the clock was set back: waiting for it to catch up could take days.
        if state.passes and 0 <= now - state.ended_at < settings.sweep_seconds:
            return Swept()
        if not state.passes:
            platform.registry.ledger.index_paths(name)
        platform.registry.ledger.marks.rebuild(name)
        state = SweepState(pipeline=name, under_way=True, began_at=now, passes=state.passes)
    try:
        with platform.notifications.exclusive(name):
            if not state.after:
                platform.notifications.tidy(name)
            stored = platform.notifications.stored(name, state.after, settings.sweep_objects)
            found = _record(platform, pipeline, stored, now, state.passes + 1)
            state = _moved_on(state, stored, found, settings.sweep_objects, now)
            platform.registry.sweeps.put(state, version)
    except Conflict:
        return Swept()
    if not state.under_way:
        _tell(platform, pipeline, state)
    return Swept(len(stored), found)


def _moved_on(
    state: SweepState, stored: list[Stored], found: int, limit: int, now: float
) -> SweepState:
    ended = len(stored) < limit
    return state.model_copy(
        update={
            "after": "" if ended else stored[-1].path,
            "under_way": not ended,
            "ended_at": now if ended else state.ended_at,
            "passes": state.passes + ended,
            "looked": state.looked + len(stored),
            "found": state.found + found,
        }
    )


def _record(
    platform: Platform, pipeline: Pipeline, stored: list[Stored], now: float, number: int
) -> int:
    """Record the unknown among these, those that arrived first before the others."""
    ledger, unknown = platform.registry.ledger, []
    for item in stored:
        if now - item.at < GRACE_SECONDS and item.at <= now:
            continue  # a later pass looks at it
        event, key = ledger.at(pipeline.name, item.path)
        if event is None:
            unknown.append((item, key or _key_beside(platform, pipeline, item) or item.key))
    found = 0
    for item, key in sorted(unknown, key=lambda each: each[0].at):
        notice = platform.notifications.identify(item, key)
        if notice is None:
            continue
        if not found:
            _tell_of_unknown(platform, pipeline, key, number)  # first: a crash must not hide it
        event = _placed(platform, pipeline, notice, item)
        numbers = None if platform.notifications.ordered else [0]
        found += ledger.record(pipeline.name, [event], [False], [item.at], numbers)
    return found


def _tell_of_unknown(platform: Platform, pipeline: Pipeline, key: str, number: int) -> None:
    raise_alert(
        platform,
        pipeline.name,
        "found",
        f"sweep {number}",
        f"objects were in the lake that the ledger did not know, e.g. {key}; they are recorded now",
        f"see 'ml-control events {pipeline.name}'; was the registry restored from a backup?",
    )


def _key_beside(platform: Platform, pipeline: Pipeline, item: Stored) -> str:
    if not item.beside:
        return ""
    return platform.registry.ledger.key_beside(pipeline.name, item.beside, len(item.path))


def _placed(platform: Platform, pipeline: Pipeline, notice: Notice, item: Stored) -> Event:
    """The event of what was found; superseded if a newer version of its key is known."""
    event = event_of(pipeline, notice)
    if event.state == "quarantined":
        quarantine(platform, event, event.reason or "")
        return event
    versions = platform.registry.ledger.versions(pipeline.name, event.partition, event.key)
    newest = max((known for known, _ in versions), key=lambda known: known.seq, default=None)
    if newest is None:
        return event
    later = platform.notifications.later(item.path, newest.path) if newest.path else None
    if later is not None:
        if later:
            return event
        said = "found in the lake; a version that was put after it is known"
        return event.model_copy(update={"state": "superseded", "reason": said})
    reason = ""
    arrived = platform.notifications.arrived(newest.path) if newest.path else None
    if item.at <= newest.recorded_at:
        reason = "found in the lake; a version that arrived after it is known"
    elif arrived is not None and arrived - newest.recorded_at > GRACE_SECONDS:
        reason = "found in the lake; its times do not tell whether it is newer than what is known"
    if not reason:
        return event
    return event.model_copy(update={"state": "superseded", "reason": reason})


def _tell(platform: Platform, pipeline: Pipeline, state: SweepState) -> None:
    """At the end of a pass: what earlier ones found is settled; refusals are told."""
    if not state.found:
        clear_alerts(platform, pipeline.name, "found")
    for partition in platform.registry.partitions.all(pipeline.name):
        if partition.refused is not None:
            alert_refused(platform, pipeline.name, partition.partition, partition.refused)
