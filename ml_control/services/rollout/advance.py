"""The loop: observe, decide, act, until nothing is left to do now."""

from __future__ import annotations

from dataclasses import dataclass, field

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Lease, Rollout
from ml_control.core.rollout import Action, Decision, decide
from ml_control.errors import MlControlError, NotProven, PlatformFailed
from ml_control.platform import Platform
from ml_control.services.deployment import STAGE, Say
from ml_control.services.rollout.act import perform
from ml_control.services.rollout.evidence import gather, note_judgement
from ml_control.services.rollout.observe import observe
from ml_control.services.rollout.tell import tell

_MOST = 30  # actions in a row; the longest way from any state to rest is a third of it
_TRIED = ("revive", "deploy", "share", "promote")


@dataclass(frozen=True)
class Advanced:
    """Where a rollout stands, what was done to get there, and why nothing more is done now."""

    rollout: Rollout
    done: tuple[Action, ...]
    because: str
    refused: dict[str, MlControlError] = field(default_factory=dict)


def look(platform: Platform, pipeline: Pipeline) -> tuple[Rollout, Decision]:
    """What would be done next. Reads new outcomes first; starts and changes nothing else."""
    gather(platform, pipeline)
    rollout = platform.registry.rollouts.get(pipeline.name)
    note_judgement(platform, pipeline, rollout)
    seen = observe(platform, pipeline, rollout)
    tell(platform, pipeline, rollout, seen)
    return rollout, decide(rollout, seen, pipeline.spec.rollout)


def advance(platform: Platform, pipeline: Pipeline, actor: str, say: Say) -> Advanced:
    """Do all that is due, under the deployer's lease. Raises ``Conflict`` while another has it,
    and the error of an action that could not be done and that nothing else makes good.
    """
    with platform.registry.leases.hold(pipeline.name, STAGE, actor) as lease:
        return advance_under(platform, pipeline, lease, actor, say)


def advance_under(
    platform: Platform, pipeline: Pipeline, lease: Lease, actor: str, say: Say
) -> Advanced:
    """:func:`advance` for whoever holds the lease already."""
    done: list[Action] = []
    refused: dict[str, MlControlError] = {}
    gather(platform, pipeline)
    for _ in range(_MOST):
        rollout = platform.registry.rollouts.get(pipeline.name)
        decision = decide(
            rollout, observe(platform, pipeline, rollout, refused), pipeline.spec.rollout
        )
        action = decision.actions[0] if decision.actions else None
        if action is None or action.kind == "gate":  # gating is the train job's work
            break
        try:
            perform(platform, pipeline, rollout, action, lease, actor, say)
        except (NotProven, PlatformFailed) as error:
            # What a variant cannot do is a fact for the next decision, once.
            if action.kind not in _TRIED or action.variant in refused:
                raise
            say(str(error))
            refused[action.variant] = error
            continue
        done.append(action)
    rollout = platform.registry.rollouts.get(pipeline.name)
    tell(platform, pipeline, rollout, observe(platform, pipeline, rollout, refused))
    made_good = {action.variant for action in done if action.kind == "roll_back"}
    left = [refused[variant] for variant in refused if variant not in made_good]
    if left and rollout.state == "idle":
        raise left[0]
    return Advanced(rollout, tuple(done), decision.because, refused)
