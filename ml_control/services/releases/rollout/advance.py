"""The loop: observe, decide, act, until nothing is left to do now."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Lease, Rollout
from ml_control.core.rollout import Action, Decision, decide
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.services.alerts import clear_alerts, raise_alert
from ml_control.services.releases.deployment import Say
from ml_control.services.releases.reconcile import STAGE
from ml_control.services.releases.rollout.act import VariantRefused, perform
from ml_control.services.releases.rollout.evidence import gather, note_judgement
from ml_control.services.releases.rollout.observe import observe
from ml_control.services.releases.rollout.tell import tell

_MOST = 30  # actions in a row; the longest way from any state to rest is a third of it
_FIRST_WAIT, _LONGEST_WAIT = 30.0, 3600.0  # seconds, after an attempt that came to nothing
_TOLD_AFTER = 3


@dataclass(frozen=True)
class Advanced:
    """Where a rollout stands, what was done to get there, and why nothing more is done now."""

    rollout: Rollout
    done: tuple[Action, ...]
    because: str
    refused: dict[str, MlControlError] = field(default_factory=dict)


def look(platform: Platform, pipeline: Pipeline) -> tuple[Rollout, Decision]:
    """What would be done next. Reads new outcomes first; starts and changes nothing else."""
    rollout, trouble = _read(platform, pipeline)
    seen = observe(platform, pipeline, rollout, trouble=trouble)
    tell(platform, pipeline, rollout, seen)
    return rollout, decide(rollout, seen, pipeline.spec.rollout)


def _read(platform: Platform, pipeline: Pipeline) -> tuple[Rollout, MlControlError | None]:
    """Read new outcomes, keep what the experiment says; the Rollout, and what was in the way."""
    trouble: MlControlError | None = None
    try:
        gather(platform, pipeline)
    except MlControlError as error:
        trouble = error
    rollout = platform.registry.rollouts.get(pipeline.name)
    if trouble is None:
        try:
            note_judgement(platform, pipeline, rollout)
        except MlControlError as error:
            trouble = error
    return rollout, trouble


@dataclass(frozen=True)
class Due:
    """What a run is asked for, or why none is. ``step`` names the action and the state it is
    decided in; ``tries`` is how often it came to nothing there.
    """

    action: Action | None
    because: str
    step: str
    tries: int
    at: float
    judging: bool  # a challenger is under judgement


def due(platform: Platform, pipeline: Pipeline) -> Due:
    """:func:`look`, with growing waits after attempts that ended in an error."""
    rollout, decision = look(platform, pipeline)
    action, now = next(iter(decision.actions), None), platform.registry.clock()
    step, judging = _step(rollout, action), rollout.state != "idle"
    tries = platform.registry.experiments.tries(pipeline.name)
    count = tries.count if action is not None and tries.step == step else 0
    if count:
        wait = min(_FIRST_WAIT * 2.0 ** (count - 1), _LONGEST_WAIT)
        if count >= _TOLD_AFTER:
            raise_alert(
                platform,
                pipeline.name,
                "rollout-failing",
                step,
                f"tried {count} times: {tries.reason}",
                "see its runs in Dagster; it is tried again",
            )
        # Below zero the clock was set back: waiting for it to catch up could take days.
        if 0 <= now - tries.at < wait:
            said = f"attempt {count} did not end well ({tries.reason}); waiting {wait:.0f} s"
            return Due(None, said, step, count, now, judging)
    else:
        clear_alerts(platform, pipeline.name, "rollout-failing")
    return Due(action, decision.because, step, count, now, judging)


def _step(rollout: Rollout, action: Action | None) -> str:
    if action is None:
        return ""
    return f"{rollout.id}:{rollout.version}:{action.kind}:{action.version[:16]}"


def advance(platform: Platform, pipeline: Pipeline, actor: str, say: Say) -> Advanced:
    """Do all that is due, under the deployer's lease. Raises ``Conflict`` while another has it,
    and the error of an action that could not be done and that nothing else makes good; an error
    is counted against its step.
    """
    with platform.registry.leases.hold(pipeline.name, STAGE, actor) as lease:
        try:
            return advance_under(platform, pipeline, lease, actor, say)
        except MlControlError as error:
            with suppress(MlControlError):  # the first error is the one to tell
                rollout, decision = look(platform, pipeline)
                step = _step(rollout, next(iter(decision.actions), None))
                platform.registry.experiments.tried(pipeline.name, step, str(error))
            raise


def advance_under(
    platform: Platform, pipeline: Pipeline, lease: Lease, actor: str, say: Say
) -> Advanced:
    """:func:`advance` for whoever holds the lease already."""
    done: list[Action] = []
    refused: dict[str, MlControlError] = {}
    rollout, trouble = _read(platform, pipeline)
    for _ in range(_MOST):
        seen = observe(platform, pipeline, rollout, refused, trouble=trouble)
        decision = decide(rollout, seen, pipeline.spec.rollout)
        action = decision.actions[0] if decision.actions else None
        if action is None or action.kind == "gate":  # gating is the train job's work
            break
        try:
            perform(platform, pipeline, rollout, action, lease, actor, say)
        except VariantRefused as error:
            # What a variant cannot do is a fact for the next decision, once.
            if error.variant in refused:
                raise error.error from error
            say(str(error.error))
            refused[error.variant] = error.error
        else:
            done.append(action)
        rollout = platform.registry.rollouts.get(pipeline.name)
    else:
        seen = observe(platform, pipeline, rollout, refused)
    tell(platform, pipeline, rollout, seen)
    made_good = {action.variant for action in done if action.kind == "roll_back"}
    left = [refused[variant] for variant in refused if variant not in made_good]
    if left and rollout.state == "idle":
        raise left[0]
    return Advanced(rollout, tuple(done), decision.because, refused)
