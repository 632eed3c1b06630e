"""The decision itself: a trigger that holds, and nothing that makes it wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ml_control.core.retraining.observation import Asking, Decision, Observation
from ml_control.core.retraining.transitions import DAY_SECONDS, repaired
from ml_control.core.retraining.triggers import due, held, is_new, judged
from ml_control.core.training_state import TrainingState
from ml_control.spec import Retrain

GRACE_SECONDS = 60.0
_ANYWAY = ("rows", "schedule", "call")  # these ask although the data is the same


def decide(state: TrainingState, seen: Observation, policy: Retrain) -> Decision:
    """Whether to train now. The same state and observation always give the same decision."""
    raw, state = state, repaired(state, seen.now)
    kept, shown = held(state, seen, policy)
    if kept != state.triggers:
        state = state.model_copy(update={"triggers": kept})
    answer = Decision(
        train=False,
        because="",
        state=state,
        triggers=shown,
        scheduled=due(state, seen, policy),
        budget=max(0, policy.max_per_day - len(state.asked)),
    )
    if refusal := _never(seen, policy):
        return replace(answer, because=refusal)
    asking = _asking(state, seen, shown)
    if refusal := _in_the_way(state, seen, asking):
        return replace(answer, because=refusal)
    unfinished = state.outcome in ("requested", "failed")
    stuck = state.outcome == "passed" and seen.undeployed
    if later := _not_quiet(raw, seen, policy, asking, owed=unfinished or stuck):
        because, until = later
        return replace(answer, because=because, not_before=until)
    wait = None
    if asking or unfinished:
        wait = _train(raw, answer, seen, policy, asking)
        if wait.train:
            return wait
    if stuck:
        found = _redeploy(raw, answer, seen, policy)
        return found if found.train or wait is None else wait
    return wait or _nothing_asks(answer, seen)


def _train(
    raw: TrainingState,
    answer: Decision,
    seen: Observation,
    policy: Retrain,
    asking: Sequence[Asking],
) -> Decision:
    """A training, unless it is tried again too soon or there were enough of them."""
    anew = _is_anew(raw, seen, asking)
    if not anew and (wait := _attempts(raw, answer, seen, policy, raw.reason)) is not None:
        return wait
    if (wait := _rationed(answer, seen, policy)) is not None:
        return wait
    because = "; ".join(one.because for one in asking) or "after a failed run"
    if anew:
        return replace(answer, train=True, because=because)
    attempt = raw.attempt + 1
    return replace(
        answer, train=True, because=f"attempt {attempt}: after a failed run", attempt=attempt
    )


def _redeploy(raw: TrainingState, answer: Decision, seen: Observation, policy: Retrain) -> Decision:
    """A run that only deploys: one died between a passing verdict and what it earned.

    It trains nothing, so that neither cooldown nor budget keep a proven model from its traffic.
    """
    why = "the proven model could not be deployed"
    if (wait := _attempts(raw, answer, seen, policy, why)) is not None:
        return wait
    attempt = raw.attempt + 1
    because = f"attempt {attempt}: the proven model is not deployed yet"
    return replace(answer, train=True, because=because, attempt=attempt, redeploy=True)


def _never(seen: Observation, policy: Retrain) -> str:
    if not policy.automatic:
        return "retrain.automatic is off"
    if seen.published is None:
        return "nothing is published yet"
    if seen.paused:
        return "a person paused this pipeline"
    if seen.backfilling:
        return "a backfill is in progress; it trains once at its end"
    return ""


def _asking(state: TrainingState, seen: Observation, shown: Sequence[Asking]) -> tuple[Asking, ...]:
    """The triggers that a training now would answer."""
    new = is_new(state, seen)
    # Trained on the same data, the same model comes out: drift waits for other data.
    return tuple(one for one in shown if one.holds and (new or one.kind in _ANYWAY))


def _in_the_way(state: TrainingState, seen: Observation, asking: Sequence[Asking]) -> str:
    if not seen.training:
        return ""
    said = "a training run is in flight"
    began = state.outcome == "requested" and state.run is not None
    answering = {t.kind for t in state.triggers if t.answering == state.number and not t.trained}
    later = [
        one.because
        for one in asking
        if one.kind not in answering or (one.kind == "rows" and seen.published != state.dataset)
    ]
    return f"{said}; once more after it: {'; '.join(later)}" if began and later else said


def _not_quiet(
    state: TrainingState,
    seen: Observation,
    policy: Retrain,
    asking: Sequence[Asking],
    *,
    owed: bool,
) -> tuple[str, float | None] | None:
    """Whether data is still being published, and until when that is waited for at most."""
    since = [one.since for one in asking if one.since is not None]
    since += [min(state.at, seen.now)] if owed else []  # a training that gave no answer asks too
    until = min(since) + policy.max_wait if since else None
    if until is not None and (seen.now >= until or seen.now - min(since) >= policy.max_wait):
        return None
    if seen.ingesting or seen.waiting:
        coming = f"{seen.ingesting} runs in flight, {seen.waiting} partitions wait"
        return f"data is coming in: {coming}", until
    if not since or seen.last_published is None or not policy.quiet:
        return None
    silent = seen.now - seen.last_published
    ends = seen.last_published + policy.quiet
    # Published in the future: the clock was set back, and how long it was quiet cannot be told.
    if silent < 0 or silent >= policy.quiet or seen.now >= ends:
        return None
    said = f"waiting for quiet: nothing was published for {silent:.0f} s of {policy.quiet:g} s"
    return said, ends if until is None else min(ends, until)


def _nothing_asks(answer: Decision, seen: Observation) -> Decision:
    state = answer.state
    new = is_new(state, seen)
    ended = judged(state) and not new
    said = [f"this data was trained on: {state.outcome}"] if ended else []
    if new:
        said += [f"{one.because} were published" for one in answer.triggers if one.kind == "rows"]
    said += [
        f"{one.because}, but the data is the same as before" for one in answer.triggers if one.holds
    ]
    if answer.scheduled is not None and answer.scheduled > seen.now:
        said.append(f"the next time is {_when(answer.scheduled)}")
    said = said or ["this data was trained on"]
    return replace(
        answer, because="; ".join(said), ended=ended, not_before=_later(seen, answer.scheduled)
    )


def _is_anew(state: TrainingState, seen: Observation, asking: Sequence[Asking]) -> bool:
    """Whether this is another question than the last training's, so that attempts begin anew."""
    if state.dataset != seen.published or judged(state):
        return True
    scheduled = [one.value for one in asking if one.kind in ("schedule", "call")]
    return any(at is not None and at > state.at for at in scheduled)


def _attempts(
    state: TrainingState, answer: Decision, seen: Observation, policy: Retrain, why: str
) -> Decision | None:
    """Later each time, and not for ever."""
    waited = seen.now - state.at
    grace = GRACE_SECONDS * 2.0 ** max(0, min(state.attempt - 1, 64))
    # Below zero the clock was set back: waiting for it to catch up could take days.
    if 0 <= waited < grace:
        said = f"attempt {state.attempt} did not end well; waiting"
        return replace(answer, because=said, not_before=_after(state.at, grace))
    if state.attempt >= policy.max_attempts:
        said = f"halted after {state.attempt} failed attempts{f': {why}' if why else ''}"
        return replace(answer, because=said, halted=True)
    return None


def _rationed(answer: Decision, seen: Observation, policy: Retrain) -> Decision | None:
    """Cooldown and the day's budget."""
    state = answer.state
    last = max([state.began, *state.asked])
    ready = last + policy.cooldown
    if policy.cooldown and last and seen.now < ready:
        said = f"the last training was {seen.now - last:.0f} s ago, of {policy.cooldown:g} s"
        return replace(answer, because=f"cooling down: {said}", not_before=ready)
    if not answer.budget:
        free = sorted(state.asked)[-policy.max_per_day] + DAY_SECONDS
        said = f"{len(state.asked)} trainings within 24 hours (retrain.max_per_day)"
        because = f"the day's budget is used up: {said}; the next at {_when(free)}"
        return replace(answer, because=because, not_before=free)
    return None


def _after(at: float, seconds: float) -> float:
    """The first float that is not before so many seconds after a time."""
    until = at + seconds
    return until if until - at >= seconds else math.nextafter(until, math.inf)


def _later(seen: Observation, at: float | None) -> float | None:
    return at if at is not None and at > seen.now else None


def _when(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return "a time beyond the calendar"
