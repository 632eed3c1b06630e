"""How the state of training moves: asked for, begun, ended; and the clock that was set back."""

from __future__ import annotations

from typing import Literal

from ml_control.core.training_state import TrainingState, Trigger

DAY_SECONDS = 86400.0
_MOST_ASKED = 10_000  # the largest budget


def requested(
    state: TrainingState, dataset: str, attempt: int, reason: str, now: float
) -> TrainingState:
    """A training was asked for. Written before the run is: a lost request is asked for again."""
    return state.model_copy(
        update={
            "dataset": dataset,
            "attempt": attempt,
            "outcome": "requested",
            "reason": reason,
            "at": now,
            "run": None,
            "asked": _asked(state, now, more=True),
        }
    )


def redeploying(state: TrainingState, attempt: int, now: float) -> TrainingState:
    """A run was asked for that deploys the proven model and trains nothing."""
    return state.model_copy(update={"attempt": attempt, "at": now})


def called(state: TrainingState, event: str, now: float) -> TrainingState:
    """A schedule's event asks for a training. Events that no training began after are one trigger;
    one that comes during a training asks for another after it.
    """
    for trigger in state.triggers:
        if trigger.kind == "call" and not trigger.trained and not trigger.answering:
            return state
    others = tuple(trigger for trigger in state.triggers if trigger.kind != "call")
    call = Trigger(kind="call", subject=event, value=now, at=now)
    return state.model_copy(update={"triggers": (*others, call)})


def begun(state: TrainingState, dataset: str | None, run: str, now: float) -> TrainingState:
    """A run began to train, by whomever it was asked for: it answers every trigger seen so far.

    What comes to be seen later is not answered by it, and asks for another training after it.
    """
    number = state.number + 1
    asked_for = state.outcome == "requested" and state.run is None
    attempt = max(state.attempt, 1) if state.dataset == dataset else 1
    return state.model_copy(
        update={
            "dataset": dataset,
            "attempt": attempt,
            "outcome": "requested",
            "at": now,
            "run": run,
            "number": number,
            "began": now,
            "asked": _asked(state, now, more=not asked_for),
            "triggers": tuple(
                trigger.model_copy(update={"answering": number}) for trigger in state.triggers
            ),
        }
    )


def ended(
    state: TrainingState,
    outcome: Literal["passed", "refused", "failed"],
    reason: str,
    now: float,
    *,
    dataset: str | None,
) -> TrainingState:
    """The training that began last was judged, or gave no answer (``failed``).

    A judged one has answered the triggers that were seen before it began.
    """
    judged = outcome != "failed"
    return state.model_copy(
        update={
            "dataset": dataset,
            "outcome": outcome,
            "reason": reason,
            "at": now,
            "triggers": tuple(
                answered(trigger, state.number) if judged else trigger for trigger in state.triggers
            ),
        }
    )


def answered(trigger: Trigger, number: int) -> Trigger:
    """A trigger after the training of this number was judged."""
    if trigger.answering != number:
        return trigger
    return trigger.model_copy(update={"trained": True})


def repaired(state: TrainingState, now: float) -> TrainingState:
    """The state without times to come, which say that the clock was set back.

    How long ago they really were cannot be told; they count as now. Kept as they are, a clock that
    was wrong by a year would stop all training for that year.
    """
    asked = tuple(at for at in (min(at, now) for at in state.asked) if at > now - DAY_SECONDS)
    triggers = tuple(
        trigger if trigger.at <= now else trigger.model_copy(update={"at": now})
        for trigger in state.triggers
    )
    fresh = {"began": min(state.began, now), "asked": asked, "triggers": triggers}
    if all(getattr(state, name) == value for name, value in fresh.items()):
        return state
    return state.model_copy(update=fresh)


def _asked(state: TrainingState, now: float, *, more: bool) -> tuple[float, ...]:
    kept = [at for at in state.asked if at > now - DAY_SECONDS]
    return tuple([*kept, now] if more else kept)[-_MOST_ASKED:]
