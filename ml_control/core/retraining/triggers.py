"""What asks for a training now: each trigger seen once, remembered, and over when it is over."""

from __future__ import annotations

from ml_control.core.retraining.observation import Asking, Measured, Observation
from ml_control.core.retraining.schedule import next_time
from ml_control.core.training_state import TrainingState, Trigger, TriggerKind
from ml_control.spec import Retrain

MEASURED: tuple[TriggerKind, ...] = (
    "partition drift",
    "live drift",
    "prediction drift",
    "quality",
)


def judged(state: TrainingState) -> bool:
    """Whether the last training got its answer."""
    return state.outcome in ("passed", "refused")


def is_new(state: TrainingState, seen: Observation) -> bool:
    """Whether what is published is not what the newest model was trained on."""
    if seen.published is None or seen.published == seen.trained:
        return False
    return not (judged(state) and state.dataset == seen.published)


def due(state: TrainingState, seen: Observation, policy: Retrain) -> float | None:
    """The scheduled time that follows the last training, past or to come."""
    if judged(state) and not state.began:  # written before the start of a training was kept
        return next_time(policy.every, min(state.at, seen.now))
    return next_time(policy.every, state.began or seen.first_published)


def held(
    state: TrainingState, seen: Observation, policy: Retrain
) -> tuple[tuple[Trigger, ...], tuple[Asking, ...]]:
    """The triggers to keep, and all of them as people are shown them, kind by kind."""
    before = {trigger.kind: trigger for trigger in state.triggers}
    found: list[tuple[Trigger | None, Asking]] = [
        _rows(before.get("rows"), state, seen, policy),
        _schedule(before.get("schedule"), state, seen, policy),
    ]
    called = before.get("call")
    if called is not None and not called.trained:
        said = "a schedule's event asked for it"
        found.append((called, Asking("call", True, said, called.value, since=called.at)))
    measured = {one.kind: one for one in seen.measured}
    for kind in MEASURED:
        if kind in measured:
            found.append(_measured(before.get(kind), measured[kind], seen.now, policy))
        elif kind in before:
            found.append((before[kind], _unknown(before[kind], policy)))
    kept = tuple(trigger for trigger, _ in found if trigger is not None)
    return kept, tuple(asking for _, asking in found)


def _rows(
    before: Trigger | None, state: TrainingState, seen: Observation, policy: Retrain
) -> tuple[Trigger | None, Asking]:
    new = is_new(state, seen)
    rows = max(seen.new_rows, 1) if new else 0  # data that changed counts, if only as one row
    said = f"{rows:,} of {policy.min_new_rows:,} new rows"
    if rows < policy.min_new_rows:
        return None, Asking("rows", False, said, float(rows), float(policy.min_new_rows))
    since = before.at if before is not None and not before.trained else seen.now
    kept = _kept(before, "rows", "", float(rows), since)
    because = "new data was published"
    return kept, Asking("rows", True, because, float(rows), float(policy.min_new_rows), kept.at)


def _schedule(
    before: Trigger | None, state: TrainingState, seen: Observation, policy: Retrain
) -> tuple[Trigger | None, Asking]:
    at = due(state, seen, policy)
    if at is None or seen.now < at:
        said = "no time is set" if at is None else "its time has not come"
        return None, Asking("schedule", False, said, value=at)
    since = before.at if before is not None and not before.trained else seen.now
    kept = _kept(before, "schedule", "", at, since)
    return kept, Asking("schedule", True, f"it is due ({policy.every})", at, since=kept.at)


def _kept(
    before: Trigger | None, kind: TriggerKind, subject: str, value: float, since: float
) -> Trigger:
    """The trigger as it was, so that holding on writes nothing; anew if it was answered."""
    if before is not None and not before.trained and before.subject == subject:
        return before
    return Trigger(kind=kind, subject=subject, value=value, at=since)


def _unknown(before: Trigger, policy: Retrain) -> Asking:
    """Not measured now says neither that it is over nor that it is not."""
    holds = policy.on_drift and not before.trained
    said = f"{before.kind} was seen, and cannot be measured now"
    return Asking(before.kind, holds, said, since=before.at, trained=before.trained)


def _measured(
    before: Trigger | None, now: Measured, at: float, policy: Retrain
) -> tuple[Trigger | None, Asking]:
    """Latched when beyond its bound, released below ``over``."""
    kept = before if before is not None and before.subject == now.subject else None
    if kept is not None and now.value < now.over:
        kept = None
    elif now.beyond and (kept is None or _grew(kept, now)):
        kept = Trigger(kind=now.kind, subject=now.subject, value=now.value, at=at)
    return kept, Asking(
        now.kind,
        policy.on_drift and kept is not None and not kept.trained,
        now.because,
        now.value,
        now.bound,
        kept.at if kept else None,
        bool(kept and kept.trained),
        now.worst,
    )


def _grew(kept: Trigger, now: Measured) -> bool:
    """Whether what was trained on is not the same any more: it is larger by another bound."""
    return kept.trained and now.value >= kept.value + now.bound
