"""Doing one action: the effect and one write of the Rollout, under the deployer's lease.

Each is in an order that a crash at any line leaves something true: a server is up and has answered
before the record names it, and the record names a variant no more before its server is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Lease, Rollout
from ml_control.core.rollout import Action
from ml_control.errors import Conflict, MlControlError, NotProven, PlatformFailed
from ml_control.platform import Platform
from ml_control.services.models.gatekeeper import Proven, require_once_proven, require_proven
from ml_control.services.releases.approvals import require_consent
from ml_control.services.releases.deployment import Say, name_it, serve, write
from ml_control.services.releases.reconcile import endpoint_name
from ml_control.services.releases.rollout.shadow import replay


class VariantRefused(Exception):
    """A variant is not proven any more, or does not come up or answer as it must: ``error``.

    Other errors of an action, such as a registry that cannot be written, say nothing of it.
    """

    def __init__(self, variant: str, error: MlControlError) -> None:
        self.variant = variant
        self.error = error
        super().__init__(variant, error)


@contextmanager
def _of_variant(variant: str, kind: type[MlControlError]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise VariantRefused(variant, error) from error


def perform(
    platform: Platform,
    pipeline: Pipeline,
    rollout: Rollout,
    action: Action,
    lease: Lease,
    actor: str,
    say: Say,
    *,
    once: bool = False,
) -> Rollout:
    """Do an action that was decided on this Rollout; gives the Rollout after it.

    ``once``: a ``deploy`` is of a version that was promoted before, whose verdict is not asked
    under today's question. Raises ``VariantRefused`` for what a variant cannot do, and typed errors
    for the rest; the Rollout is then as it was.
    """
    variant = action.variant
    if action.kind == "deploy":
        ask = require_once_proven if once else require_proven
        with _of_variant(variant, NotProven):
            proven = ask(platform, pipeline, action.version)
        say(f"variant {variant} starts with model {action.version[:12]}")
        with _of_variant(variant, PlatformFailed):
            state, rows = serve(platform, pipeline, variant, proven, lease)
        say(f"{state.url} answered {rows} golden records as in training")
        return name_it(platform, rollout, variant, state, proven, lease, actor)
    if action.kind == "revive":
        version = rollout.variants[variant].model_version
        with _of_variant(variant, NotProven):
            proven = require_once_proven(platform, pipeline, version)
        with _of_variant(variant, PlatformFailed):
            state, _ = serve(platform, pipeline, variant, proven, lease)
        say(f"variant {variant} serves again at {state.url}")
        return rollout
    if action.kind == "stop":
        platform.endpoints.stop(endpoint_name(pipeline, variant))
        say(action.because)
        return rollout
    if action.kind == "replay":
        proven = require_once_proven(platform, pipeline, action.version)
        replay(platform, pipeline, rollout, variant, proven, lease, actor, say)
        return rollout
    details: Mapping[str, Any] | None = None
    if action.kind in ("promote", "revert") or (action.kind == "share" and action.share > 0):
        with _of_variant(variant, NotProven):
            proven = _proof(platform, pipeline, rollout, action)
        with _of_variant(variant, PlatformFailed):
            _, rows = serve(platform, pipeline, variant, proven, lease)
        details = {"verdict": proven.verdict.key, "golden_records": rows}
    after = write(platform, rollout, action, lease, actor, details=details)
    say(action.because)
    if action.kind == "retire" and variant not in after.variants:
        platform.endpoints.stop(endpoint_name(pipeline, variant))
    return after


def _proof(platform: Platform, pipeline: Pipeline, rollout: Rollout, action: Action) -> Proven:
    """The proof for giving a variant traffic: asked anew, unless it takes part already.

    A later champion or gate does not unmake a challenger under judgement, nor what served before.
    """
    if action.kind == "revert" or rollout.state != "idle":
        return require_once_proven(platform, pipeline, action.version)
    proven = require_proven(platform, pipeline, action.version)
    if action.version in rollout.rolled_back:
        raise Conflict(
            f"{pipeline.name} model {action.version[:12]}",
            "it was rolled back meanwhile",
            "decide anew",
        )
    require_consent(platform, pipeline, action.version, proven.verdict)
    return proven
