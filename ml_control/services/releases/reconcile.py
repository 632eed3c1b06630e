"""What the registry says against what serves and what lies in the lake.

They can only disagree when the registry went back in time (an older backup, a lost log) or when
somebody changed files by hand. What serves without a passing verdict for exactly its bytes is
halted: the verdict may have been lost with the newer registry, but nobody can tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import VARIANTS, ModelVersion, Rollout
from ml_control.core.rollout import Action, apply
from ml_control.errors import Conflict, NotProven, Unknown
from ml_control.platform import Platform
from ml_control.ports import EndpointState
from ml_control.registry import History
from ml_control.services.alerts import HALT, raise_alert
from ml_control.services.models.evidence import ARCHIVE

STAGE = "deploy"  # the lease under which endpoints are changed
_VERSION = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Difference:
    """One thing that the registry and the rest of the home do not agree on."""

    object: str
    reason: str
    next: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"object": self.object, "reason": self.reason, "next": self.next}


def endpoint_name(pipeline: Pipeline, variant: str) -> str:
    """The endpoint of a variant: one name for ever, so that clients need no look-up."""
    return f"{pipeline.name.replace('_', '-')}-{variant}"


def described(platform: Platform, pipeline: Pipeline) -> dict[str, EndpointState]:
    """What the endpoint of each variant does now."""
    return {
        variant: platform.endpoints.describe(endpoint_name(pipeline, variant))
        for variant in VARIANTS
    }


def unproven(
    platform: Platform, pipeline: Pipeline, states: Mapping[str, EndpointState] | None = None
) -> dict[str, Unknown]:
    """Variants whose endpoint holds bytes that no passing verdict of this registry is about.

    A deployment cannot be meant: it has its verdict before its server starts. ``states`` is what
    :func:`described` gave just now, if it is known.
    """
    found: dict[str, Unknown] = {}
    for variant, state in (states or described(platform, pipeline)).items():
        if state.model_version and not _is_proven(platform, pipeline, state):
            reason, step = _why_unproven(pipeline, state)
            found[variant] = Unknown(
                f"endpoint {state.name}",
                f"holds model {state.model_version[:12]}, and {reason}",
                step,
                model_version=state.model_version,
                state=state.state,
            )
    return found


def _why_unproven(pipeline: Pipeline, state: EndpointState) -> tuple[str, str]:
    """Reason and next step, for an endpoint that is not proven."""
    if replaced := state.detail.get("replaced"):
        step = (
            "see who may write there; 'ml-control up' or the next prediction serves the proven "
            "bytes again"
        )
        return f"{replaced} was replaced after it was proven", step
    step = (
        "restore a newer backup of the registry, or have it proven again with "
        f"'ml-control run {pipeline.name}'"
    )
    return "the registry knows no passing verdict for exactly its bytes", step


def halt_unproven(platform: Platform, pipeline: Pipeline) -> dict[str, Unknown]:
    """Stop what serves without proof, and write down that it was stopped. Its bytes are kept.

    Gives what was stopped now, by variant. What is stopped already is left as it is, and so is
    everything while a run deploys.
    """
    registry = platform.registry
    if not _serving_unproven(platform, pipeline):
        return {}
    halted = {}
    try:
        with registry.leases.hold(pipeline.name, STAGE, "reconciliation"):
            for variant, error in _serving_unproven(platform, pipeline).items():
                platform.endpoints.stop(endpoint_name(pipeline, variant))
                registry.history.append(
                    pipeline.name,
                    "halted",
                    str(error.detail["model_version"]),
                    f"{error.object} {error.reason}",
                    actor="reconciliation",
                    details={"variant": variant, "next": error.next},
                )
                raise_alert(
                    platform,
                    pipeline.name,
                    HALT,
                    f"{endpoint_name(pipeline, variant)} {error.detail['model_version']}",
                    f"was stopped: {error.reason}",
                    error.next,
                )
                halted[variant] = error
    except Conflict:
        return halted
    return halted


def _serving_unproven(platform: Platform, pipeline: Pipeline) -> dict[str, Unknown]:
    found = unproven(platform, pipeline)
    return {name: error for name, error in found.items() if error.detail["state"] != "Missing"}


def differences(platform: Platform, pipeline: Pipeline) -> list[Difference]:
    """Everything that the registry and the home do not agree on; changes nothing."""
    return [
        *_served(platform, pipeline),
        *_models(platform, pipeline),
        *_manifests(platform, pipeline),
        *_objects(platform, pipeline),
    ]


def _served(platform: Platform, pipeline: Pipeline) -> Iterator[Difference]:
    states = described(platform, pipeline)
    unknown = unproven(platform, pipeline, states)
    rollout = platform.registry.rollouts.get(pipeline.name)
    for variant, state in states.items():
        if variant in unknown:
            error = unknown[variant]
            yield Difference(error.object, error.reason, error.next)
            continue
        named = rollout.variants.get(variant)
        if named is not None and state.model_version not in ("", named.model_version):
            yield Difference(
                f"endpoint {state.name}",
                f"holds model {state.model_version[:12]}, the rollout names "
                f"{named.model_version[:12]}",
                "'ml-control up' or the next prediction serves what the rollout names",
            )


def _models(platform: Platform, pipeline: Pipeline) -> Iterator[Difference]:
    models = {model.version: model for model in platform.registry.models.all(pipeline.name)}
    prefix = f"artifacts/{pipeline.name}"
    there = {key.split("/")[2] for key in platform.lake.list(prefix) if key.count("/") > 2}
    for version in sorted(name for name in there if _VERSION.fullmatch(name)):
        if version not in models:
            yield Difference(
                f"{pipeline.name} model {version[:12]}",
                "is in the lake, and the registry does not know it",
                f"'ml-control run {pipeline.name}' trains, or takes up, and judges anew",
            )
    for version, model in sorted(models.items()):
        missing = [name for name in model.files if not _there(platform, model, name)]
        if missing:
            yield Difference(
                f"{pipeline.name} model {version[:12]}",
                f"is known, but {', '.join(sorted(missing))} is not in the lake",
                "restore the lake of the same time; it cannot be deployed until then",
            )


def _manifests(platform: Platform, pipeline: Pipeline) -> Iterator[Difference]:
    for state in platform.registry.partitions.all(pipeline.name):
        for published in (state.raw, state.processed):
            if published is not None and not platform.lake.exists(published.path):
                yield Difference(
                    published.path,
                    "is published, but not in the lake",
                    f"restore the lake of the same time, or 'ml-control backfill {pipeline.name} "
                    f"--from {state.partition} --to {state.partition}'",
                )


def _objects(platform: Platform, pipeline: Pipeline) -> Iterator[Difference]:
    known = {event.path for event in platform.registry.ledger.events(pipeline.name)}
    raw = platform.lake.list(f"raw/{pipeline.name}")
    lost = [key for key in raw if key not in known and "/_manifests/" not in key]
    if lost:
        yield Difference(
            f"{pipeline.name} ledger",
            f"does not know {len(lost)} objects of the lake, e.g. {lost[0]}",
            "the slow sweep records them again; or ingest them again",
        )


def _there(platform: Platform, model: ModelVersion, name: str) -> bool:
    return platform.lake.exists(f"{model.prefix}/{name}")


def _is_proven(platform: Platform, pipeline: Pipeline, state: EndpointState) -> bool:
    """Whether the registry has a passing verdict for the model and these are its bytes."""
    models = platform.registry.models
    try:
        model = models.get(pipeline.name, state.model_version)
    except NotProven:
        return False
    digest = state.detail.get("archive_sha256", model.files.get(ARCHIVE))
    passed = any(v.passed for v in models.verdicts(pipeline.name, model.version))
    container = state.detail.get("container", model.container)
    same = model.version == state.model_version and container == model.container
    return passed and same and digest == model.files.get(ARCHIVE)


def require_whole(platform: Platform, pipeline: Pipeline) -> None:
    """Raise ``Unknown`` when the restored chain of decisions is broken, whatever was anchored."""
    History(platform.registry.tables, platform.registry.clock).verify(pipeline.name)


def after_restore(
    platform: Platform, pipeline: Pipeline, source: str, actor: str = "ml-control restore"
) -> list[Difference]:
    """Halt what is not proven any more, write the restore into the history, say what differs."""
    # What is halted below stands in the history before the restore itself does.
    newest = next(platform.registry.history.newest(pipeline.name), None)
    found = differences(platform, pipeline)
    halted = halt_unproven(platform, pipeline)
    rollout = _halt_rollout(platform, pipeline, f"the registry was restored from {source}")
    platform.registry.history.append(
        pipeline.name,
        "restored",
        rollout.champion or "",
        f"the registry was restored from {source}",
        actor=actor,
        details={
            "differences": [item.to_json() for item in found],
            "halted": sorted(halted),
            "keeps": newest.seq if newest else 0,
        },
    )
    return found


def _halt_rollout(platform: Platform, pipeline: Pipeline, because: str) -> Rollout:
    """Halt a rollout that is in progress: what was counted since the backup is not known."""
    registry = platform.registry
    rollout = registry.rollouts.get(pipeline.name)
    if rollout.state != "in_progress":
        return rollout
    with registry.leases.hold(pipeline.name, STAGE, "reconciliation") as lease:
        before = registry.rollouts.get(pipeline.name)
        action = Action("halt", f"{because}: what was counted since is not known", before.id)
        after = apply(before, action, registry.clock())
        if after is before:
            return before
        return registry.rollouts.write(
            before,
            after,
            registry.leases.fence(lease),
            action="halted",
            because=action.because,
            actor="reconciliation",
        )


def require_known(platform: Platform, pipeline: Pipeline) -> None:
    """Raise ``Unknown`` when nothing is live, but an endpoint holds what is not proven any more."""
    if platform.registry.rollouts.get(pipeline.name).live is not None:
        return
    for error in unproven(platform, pipeline).values():
        raise error
