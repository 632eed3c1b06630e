"""From the prediction log to the lake: Parquet by hour, and live histograms beside the offset.

Exactly once, whoever dies: the offsets of a flush are planned in the registry first, its files are
named by them, and the histograms are added in the transaction that moves the offset. A flush that
died is finished by the next one with the same plan; two at once write the same files, and one of
them adds the histograms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_control.core.live import live_predictions, live_profile
from ml_control.core.pipeline import Pipeline
from ml_control.errors import Conflict, MlControlError, Unknown
from ml_control.platform import Platform
from ml_control.ports import Joined, Logged, LogState
from ml_control.registry.live import MOST_PROFILES, LiveState, Plan
from ml_control.services.traffic.live import records_frame, reference_of
from ml_control.services.traffic.log_files import (
    file_key,
    hour_of,
    outcomes_frame,
    predictions_frame,
    write_once,
)

EVERY_SECONDS = 300.0  # what is in the log longer is due: so old the lake is at most
MANY = 10_000  # so many are due at once
_MOST = 20_000  # requests, and outcomes, of one plan
_MOST_BYTES = 64 << 20  # of captured records
_STEP = 1_000
_PRUNE_SECONDS = 3600.0


@dataclass
class Flushed:
    """What was flushed, and what could not be."""

    predictions: int = 0  # requests
    outcomes: int = 0
    files: int = 0
    errors: dict[str, MlControlError] = field(default_factory=dict)  # by pipeline


def flush(platform: Platform, pipelines: Sequence[Pipeline], *, force: bool = False) -> Flushed:
    """Write what is due of each pipeline's log into the lake; all there is, with ``force``.

    Due are whole hours, many at once, and what waited five minutes. Its cost grows with what is
    new. May be called by several processes at once; a pipeline's trouble is told and keeps no
    other one waiting.
    """
    done = Flushed()
    for pipeline in pipelines:
        try:
            while _flush_once(platform, pipeline, done, force=force):
                pass
        except MlControlError as error:
            if not isinstance(error, Conflict):  # then another process flushes it just now
                done.errors[pipeline.name] = error
    return done


def _flush_once(platform: Platform, pipeline: Pipeline, done: Flushed, *, force: bool) -> bool:
    """One plan, if something is due; whether there may be more."""
    registry, name = platform.registry, pipeline.name
    state, version = registry.live.state(name)
    if state.plan is None:
        newest = platform.log.state(name)
        _refuse_older(state, newest)
        new = newest.newest > state.predictions or newest.joined > state.outcomes
        if not new or not (force or _is_due(platform, state, newest)):
            _prune(platform, pipeline, state, version)
            return False
        plan, requests, outcomes = _planned(platform, state, newest)
        version = registry.live.put(state.model_copy(update={"plan": plan}), version)
    else:
        plan = state.plan
        requests = _requests(platform, name, state.predictions, plan.predictions)
        outcomes = _outcomes(platform, name, state.outcomes, plan.outcomes)
    files = _write(platform, pipeline, requests, outcomes)
    after = state.model_copy(
        update={
            "predictions": plan.predictions,
            "outcomes": plan.outcomes,
            "plan": None,
            "flushed_at": registry.clock(),
        }
    )
    version = registry.live.add(after, version, _profiles(platform, pipeline, requests))
    done.predictions += len(requests)
    done.outcomes += len(outcomes)
    done.files += files
    _prune(platform, pipeline, after, version)
    return True


def _refuse_older(state: LiveState, newest: LogState) -> None:
    """A log that ends before what was flushed is another one, and its requests would be taken
    for flushed ones.
    """
    if 0 < newest.newest < state.predictions or 0 < newest.joined < state.outcomes:
        raise Unknown(
            f"{state.pipeline} prediction log",
            f"ends at offset {newest.newest}, but {state.predictions} was flushed: it is an older "
            "copy, or was made anew under a clock that was behind",
            "bring the newer log back, or let a new one begin whose offsets go on (locally: move "
            "predictions.db away); what the lake has stays",
        )


def _is_due(platform: Platform, state: LiveState, newest: LogState) -> bool:
    now, name = platform.registry.clock(), state.pipeline
    requests = platform.log.after(name, state.predictions, 1)
    outcomes = platform.log.joined(name, state.outcomes, 1)
    waiting = [newest.newest + 1 - one.offset for one in requests]
    waiting += [newest.joined + 1 - one.offset for one in outcomes]
    if not waiting:
        return False
    times = [one.prediction.at for one in requests] + [one.told_at for one in outcomes]
    oldest = min(times)
    # Also after a clock went back: what is from the future, or was flushed there, does not wait.
    waited = min(abs(now - state.flushed_at), abs(now - oldest)) >= EVERY_SECONDS
    return max(waiting) >= MANY or waited or hour_of(oldest) != hour_of(now)


def _planned(
    platform: Platform, state: LiveState, newest: LogState
) -> tuple[Plan, list[Logged], list[Joined]]:
    """How far this flush goes, by rows, bytes, and the profiles that one transaction takes; and
    what that is.
    """
    outcomes = platform.log.joined(state.pipeline, state.outcomes, _MOST)
    told = outcomes[-1].offset if len(outcomes) == _MOST else newest.joined
    told = max([told, state.outcomes, *(one.offset for one in outcomes[-1:])])
    found: list[Logged] = []
    size, keys = 0, set()
    while True:
        last = found[-1].offset if found else state.predictions
        page = platform.log.after(state.pipeline, last, _STEP)
        for one in page:
            keys.add((one.prediction.model_version, hour_of(one.prediction.at)))
            size += len(one.prediction.records or b"")
            full = len(found) >= _MOST or (found and size > _MOST_BYTES)
            if full or len(keys) > MOST_PROFILES:
                return Plan(predictions=found[-1].offset, outcomes=told), found, outcomes
            found.append(one)
        if len(page) < _STEP:  # then nothing is left up to what was the newest
            last = found[-1].offset if found else state.predictions
            end = max(last, newest.newest)
            return Plan(predictions=end, outcomes=told), found, outcomes


def _requests(platform: Platform, pipeline: str, after: int, last: int) -> list[Logged]:
    found: list[Logged] = []
    while after < last:
        page = platform.log.after(pipeline, after, _STEP)
        found += [one for one in page if one.offset <= last]
        if not page:
            break
        after = page[-1].offset
    return found


def _outcomes(platform: Platform, pipeline: str, after: int, last: int) -> list[Joined]:
    if after >= last:
        return []
    return [one for one in platform.log.joined(pipeline, after, _MOST) if one.offset <= last]


def _write(
    platform: Platform, pipeline: Pipeline, requests: list[Logged], outcomes: list[Joined]
) -> int:
    """Write a file for each hour; how many were not there yet."""
    files = 0
    hours: dict[int, list[Logged]] = {}
    for one in requests:
        hours.setdefault(hour_of(one.prediction.at), []).append(one)
    for hour, rows in hours.items():
        key = file_key(pipeline.name, "predictions", hour, rows[0].offset, rows[-1].offset)
        files += write_once(platform.lake, key, predictions_frame(rows, pipeline.spec))
    told: dict[int, list[Joined]] = {}
    for each in outcomes:
        told.setdefault(hour_of(each.told_at), []).append(each)
    for hour, lines in told.items():
        key = file_key(pipeline.name, "outcomes", hour, lines[0].offset, lines[-1].offset)
        files += write_once(platform.lake, key, outcomes_frame(lines))
    return files


def _profiles(
    platform: Platform, pipeline: Pipeline, requests: list[Logged]
) -> dict[tuple[str, int], dict[str, Any]]:
    """The live profile of each model version and hour among these requests."""
    groups: dict[tuple[str, int], list[Logged]] = {}
    for one in requests:
        if one.prediction.served:
            key = (one.prediction.model_version, hour_of(one.prediction.at))
            groups.setdefault(key, []).append(one)
    profiles: dict[tuple[str, int], dict[str, Any]] = {}
    references = {version: reference_of(platform, pipeline.name, version) for version, _ in groups}
    for (version, hour), rows in groups.items():
        reference = references[version]
        records, scores, labels = records_frame(rows, pipeline.spec)
        profiles[version, hour] = {
            **live_profile(records, reference, pipeline.spec),
            "prediction": live_predictions(scores, labels, reference, pipeline.spec),
        }
    return profiles


def _prune(platform: Platform, pipeline: Pipeline, state: LiveState, version: int) -> None:
    """Let the log drop what the lake has and what is too old, now and then."""
    now = platform.registry.clock()
    if abs(now - state.pruned_at) < _PRUNE_SECONDS:
        return
    if not version:  # nothing was ever flushed
        return
    keep = pipeline.spec.rollout.shadow_requests
    platform.log.prune(pipeline.name, state.predictions, state.outcomes, keep)
    platform.registry.live.put(state.model_copy(update={"pruned_at": now}), version)
