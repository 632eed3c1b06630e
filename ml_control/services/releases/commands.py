"""A person's decisions: promote, roll back, move traffic, pause, resume. Approvals are beside it.

Each is recorded with who and why, in the same write as what it changes. Two people at once: one
holds the deployer's lease, the other gets ``Conflict``, or is told that it is so already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout
from ml_control.core.rollout import Command, is_last, obey
from ml_control.errors import InvalidSpec, PlatformFailed
from ml_control.platform import Platform
from ml_control.services.releases.approvals import approve, reject
from ml_control.services.releases.deployment import Say
from ml_control.services.releases.reconcile import STAGE
from ml_control.services.releases.rollout.act import VariantRefused, perform
from ml_control.services.releases.rollout.observe import observe
from ml_control.services.releases.rollout.tell import tell

__all__ = ["Done", "approve", "pause", "promote", "reject", "resume", "rollback", "traffic"]

_MOST = 10  # actions on the longest way of a command


@dataclass(frozen=True)
class Done:
    """The Rollout after a command, whether the command changed it, and what to say."""

    rollout: Rollout
    changed: bool
    said: str


def promote(
    platform: Platform,
    pipeline: Pipeline,
    *,
    actor: str,
    because: str,
    version: str | None = None,
    say: Say = lambda _: None,
) -> Done:
    """Give all traffic to the challenger, or to a proven version (the newest unless named).

    Raises ``NotProven`` for a model without passing verdict or consent, or that lost live;
    ``Conflict`` when another model's rollout is in progress or its verdict is outdated.
    """
    if version:
        version = platform.registry.models.get(pipeline.name, version).version
    return _do(platform, pipeline, Command("promote", version or ""), actor, because, say)


def rollback(
    platform: Platform,
    pipeline: Pipeline,
    *,
    actor: str,
    because: str,
    say: Say = lambda _: None,
) -> Done:
    """Take the challenger out, or go back to the version before the champion.

    One write while that still serves; otherwise it is put up again from its proven bytes first.
    Raises ``Conflict`` when this rollout was rolled back already or nothing is recorded before the
    champion, ``NotProven`` when what was before failed or its bytes are not there.
    """
    return _do(platform, pipeline, Command("rollback"), actor, because, say)


def traffic(
    platform: Platform, pipeline: Pipeline, share: float, *, actor: str, because: str
) -> Done:
    """Set the challenger's share of entities (0 to 1). Raises ``Conflict`` without a challenger."""
    if not 0.0 <= share <= 1.0:
        raise InvalidSpec(
            f"share {share:g}", "is not between 0 and 1", "0.25 gives it a quarter of the entities"
        )
    return _do(platform, pipeline, Command("traffic", share=share), actor, because, _silent)


def pause(platform: Platform, pipeline: Pipeline, *, actor: str, because: str) -> Done:
    """Stop every automatic step of the rollout; the weights stand."""
    return _do(platform, pipeline, Command("pause"), actor, because, _silent)


def resume(platform: Platform, pipeline: Pipeline, *, actor: str, because: str) -> Done:
    """Go on after a pause or a halt. Raises ``Unknown`` while what halted it is still so."""
    return _do(platform, pipeline, Command("resume"), actor, because, _silent)


def _do(
    platform: Platform, pipeline: Pipeline, command: Command, actor: str, because: str, say: Say
) -> Done:
    because = because.strip()
    if not because or not actor.strip():
        missing = "reason" if actor.strip() else "name of who decides"
        raise InvalidSpec(
            f"{pipeline.name} {command.name}", f"has no {missing}", "say who decides and why"
        )
    registry = platform.registry
    with registry.leases.hold(pipeline.name, STAGE, f"{command.name} by {actor}") as lease:
        before = registry.rollouts.get(pipeline.name)
        for _ in range(_MOST):
            rollout = registry.rollouts.get(pipeline.name)
            seen = observe(platform, pipeline, rollout, asked=command.version)
            action, said = obey(rollout, seen, command)
            if action is None:
                return Done(rollout, rollout.version != before.version, said)
            told = replace(action, because=action.because or because)
            again = command.name == "rollback"
            try:
                after = perform(platform, pipeline, rollout, told, lease, actor, say, once=again)
            except VariantRefused as refused:
                raise refused.error from refused
            if is_last(command, action):
                tell(platform, pipeline, after, seen)
                return Done(after, after.version != before.version, because)
    raise PlatformFailed(
        f"{pipeline.name} {command.name}",
        f"it came to no end within {_MOST} steps",
        f"see 'ml-control history {pipeline.name}' for what was done",
    )


def _silent(_: str) -> None:
    """What these commands do takes no time to tell of."""
