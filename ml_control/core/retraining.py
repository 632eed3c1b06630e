"""When to train: a pure decision from what is true now."""

from __future__ import annotations

from dataclasses import dataclass

from ml_control.core.records import TrainingState

GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Observation:
    """What the platform says is true."""

    published: str | None  # digest of the dataset that training would use
    ingesting: int  # ingest runs in flight
    waiting: int  # partitions with open events or unprocessed content
    training: bool  # a training run is in flight
    backfilling: bool
    undeployed: bool  # the candidate passed its gates and is not the champion
    now: float


@dataclass(frozen=True)
class Decision:
    """Whether to train, and the reason that people are shown."""

    train: bool
    because: str
    attempt: int = 1
    halted: bool = False  # attempts are used up: a person is needed
    ended: bool = False  # this data was trained on and judged


def decide(
    state: TrainingState, seen: Observation, *, automatic: bool, max_attempts: int
) -> Decision:
    """Train once for each published dataset, when nothing that would change it is under way.

    Level-based: the same state and observation always give the same decision, so it may be
    asked at any time and after any crash.
    """
    refusal = _not_now(seen, automatic=automatic)
    if refusal:
        return Decision(train=False, because=refusal)
    if state.dataset != seen.published:
        return Decision(train=True, because="new data was published")
    stuck = state.outcome == "passed" and seen.undeployed
    if state.outcome in ("passed", "refused") and not stuck:
        because = f"this data was trained on: {state.outcome}"
        return Decision(train=False, because=because, ended=True)
    waited = seen.now - state.at
    # Below zero the clock was set back: waiting for it to catch up could take days.
    if 0 <= waited < GRACE_SECONDS * 2 ** (state.attempt - 1):
        return Decision(train=False, because=f"attempt {state.attempt} did not end well; waiting")
    if state.attempt >= max_attempts:
        why = f": {state.reason}" if state.reason and not stuck else ""
        why = ": the proven model could not be deployed" if stuck else why
        said = f"halted after {state.attempt} failed attempts{why}"
        return Decision(train=False, because=said, halted=True)
    attempt = state.attempt + 1
    because = "the proven model is not deployed yet" if stuck else "after a failed run"
    return Decision(train=True, because=f"attempt {attempt}: {because}", attempt=attempt)


def _not_now(seen: Observation, *, automatic: bool) -> str:
    if not automatic:
        return "retrain.automatic is off"
    if seen.published is None:
        return "nothing is published yet"
    if seen.backfilling:
        return "a backfill is in progress; it trains once at its end"
    if seen.training:
        return "a training run is in flight"
    if seen.ingesting or seen.waiting:
        return f"data is coming in: {seen.ingesting} runs in flight, {seen.waiting} partitions wait"
    return ""
