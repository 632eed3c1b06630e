"""What the platform says is true of a rollout. Reads records and states; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from ml_control.core.gates import gate_config
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout, Verdict
from ml_control.core.rollout import Alarmed, Candidate, Health, Judged, Replayed, Seen, Serving
from ml_control.errors import MlControlError, Retryable
from ml_control.platform import Platform
from ml_control.services.data.audit import quality_digest
from ml_control.services.releases.approvals import consent
from ml_control.services.releases.reconcile import described, unproven
from ml_control.services.releases.rollout.alarms import alarmed
from ml_control.services.releases.rollout.evidence import health_of, judge_of, read_evidence


def observe(
    platform: Platform,
    pipeline: Pipeline,
    rollout: Rollout,
    refused: Mapping[str, MlControlError] | None = None,
    asked: str = "",
    trouble: MlControlError | None = None,
) -> Seen:
    """The truth about a Rollout just read. ``refused``: variants that could not be brought up;
    ``trouble``: why new outcomes could not be read, for old ones alone are no evidence.

    The candidate is the newest model, or the one ``asked`` for. Bytes are not read here: whoever
    gives traffic proves them again.
    """
    states = described(platform, pipeline)
    unknown = unproven(platform, pipeline, states)
    serving: dict[str, Serving] = {}
    for variant, state in states.items():
        why = (refused or {}).get(variant)
        serving[variant] = Serving(
            state.state, state.model_version, variant not in unknown, why.reason if why else ""
        )
    judged: Judged | None = None
    health: Health | None = None
    late = unreadable = ""
    alarms = Alarmed()
    if rollout.state != "idle" and rollout.phase in ("canary", "experiment"):
        alarms = alarmed(platform, pipeline, rollout)
        try:
            if trouble is not None:
                raise trouble
            evidence = read_evidence(platform, pipeline, rollout)
            if rollout.phase == "canary":
                health = health_of(pipeline, rollout, evidence)
            else:
                judged = judge_of(platform, pipeline, rollout, evidence)
        except Retryable as error:
            late = error.reason
        except MlControlError as error:
            unreadable = error.reason
    shadow = platform.registry.experiments.shadow(pipeline.name, rollout.id)
    return Seen(
        now=platform.registry.clock(),
        candidate=_candidate(platform, pipeline, rollout, asked),
        serving=serving,
        to_replay=_to_replay(platform, pipeline),
        replayed=Replayed(shadow.requests, shadow.failed, shadow.differing, shadow.because)
        if shadow
        else None,
        judged=judged,
        health=health,
        alarms=alarms,
        late=late,
        unreadable=unreadable,
    )


def _to_replay(platform: Platform, pipeline: Pipeline) -> int:
    """At most how many logged requests a replay would ask; 0 when none is logged."""
    wanted = pipeline.spec.rollout.shadow_requests
    return wanted if wanted and platform.log.newest(pipeline.name, 1) else 0


def _candidate(
    platform: Platform, pipeline: Pipeline, rollout: Rollout, asked: str
) -> Candidate | None:
    models = platform.registry.models
    candidate = models.get(pipeline.name, asked) if asked else models.candidate(pipeline.name)
    if candidate is None:
        return None
    version = candidate.version
    verdicts = models.verdicts(pipeline.name, version)
    config = gate_config(pipeline.spec, quality_digest(pipeline.spec, pipeline.suite))
    same = [v for v in verdicts if v.gate_config == config and v.champion == rollout.champion]
    present: Verdict | None = same[0] if same else None
    newest = verdicts[0] if verdicts else None
    given, why = consent(platform, pipeline, version, present or newest)
    if present is not None and present.passed:
        return Candidate(version, "proven", given, why)
    if present is not None:
        return Candidate(version, "refused", given, f"its verdict is no: {_failed(present)}")
    if newest is not None and not newest.passed:
        return Candidate(version, "refused", given, f"its verdict is no: {_failed(newest)}")
    moved = "the gates" if newest and newest.gate_config != config else "the champion"
    why = f"{moved} changed since its verdict" if newest else "there is no verdict for it"
    return Candidate(version, "outdated", given, why)


def _failed(verdict: Verdict) -> str:
    return ", ".join(verdict.failed)
