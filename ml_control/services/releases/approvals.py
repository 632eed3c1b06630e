"""A person's word on a proven model, where ``gates.approval`` asks for one."""

from __future__ import annotations

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Verdict
from ml_control.core.rollout.seen import Consent
from ml_control.errors import Conflict, NotProven
from ml_control.platform import Platform
from ml_control.registry.approvals import Approval
from ml_control.services.alerts import clear_alerts


def consent(
    platform: Platform, pipeline: Pipeline, version: str, verdict: Verdict | None
) -> tuple[Consent, str]:
    """Whether a person's consent is given, and why not. A rejection counts also where none is
    asked for. What nobody approved within ``expires`` of its verdict is not deployed any more.
    """
    answer = platform.registry.approvals.get(pipeline.name, version)
    if answer is not None and answer.state == "rejected":
        return "rejected", f"{answer.actor} rejected it: {answer.because}"
    asked = pipeline.spec.gates.approval
    if answer is not None or not asked.manual:
        return "given", ""
    waited = platform.registry.clock() - verdict.at if verdict else 0.0
    if waited > asked.expires:
        return "expired", "nobody approved it in time"
    return "pending", "a person must approve it"


def require_consent(
    platform: Platform, pipeline: Pipeline, version: str, verdict: Verdict | None
) -> None:
    """Raise ``NotProven`` unless a person's consent is given or not asked for.

    The error's ``waits`` says that it may still come.
    """
    found, because = consent(platform, pipeline, version, verdict)
    if found == "given":
        return
    name = f"{pipeline.name} model {version[:12]}"
    if found == "pending":
        step = f"'ml-control approve {pipeline.name}', or 'ml-control reject {pipeline.name}'"
        raise NotProven(name, because, step, waits=True)
    raise NotProven(name, because, f"train another: 'ml-control run {pipeline.name}'")


def approve(
    platform: Platform, pipeline: Pipeline, version: str | None, *, actor: str, because: str
) -> Approval:
    """Allow a model version (the candidate unless named) to take traffic; recorded for ever.

    Raises ``NotProven`` when it has no passing verdict or waited too long, ``Conflict`` when it was
    rejected.
    """
    version = _version(platform, pipeline, version)
    passed = _require_passed(platform, pipeline, version)
    found, why = consent(platform, pipeline, version, passed)
    if found == "expired":
        raise NotProven(
            f"{pipeline.name} model {version[:12]}",
            why,
            f"train another on today's data: 'ml-control run {pipeline.name}'",
        )
    answer = platform.registry.approvals.write(
        pipeline.name, version, "approved", actor=actor, because=because
    )
    clear_alerts(platform, pipeline.name, "approval")
    return answer


def reject(
    platform: Platform, pipeline: Pipeline, version: str | None, *, actor: str, because: str
) -> Approval:
    """Never let a model version take traffic again. Raises ``Conflict`` when it takes some now."""
    version = _version(platform, pipeline, version)
    rollout = platform.registry.rollouts.get(pipeline.name)
    for variant, entry in rollout.variants.items():
        takes = rollout.weights.get(variant, 0.0) > 0 or variant == rollout.challenger
        if entry.model_version == version and takes:
            raise Conflict(
                f"{pipeline.name} model {version[:12]}",
                f"it serves on variant {variant}",
                f"take it out with 'ml-control rollback {pipeline.name}', then reject it",
                rollout=rollout.id,
            )
    answer = platform.registry.approvals.write(
        pipeline.name, version, "rejected", actor=actor, because=because
    )
    clear_alerts(platform, pipeline.name, "approval")
    return answer


def _version(platform: Platform, pipeline: Pipeline, version: str | None) -> str:
    if version:
        return platform.registry.models.get(pipeline.name, version).version
    candidate = platform.registry.models.candidate(pipeline.name)
    if candidate is None:
        raise NotProven(
            pipeline.name, "no model was trained yet", f"run 'ml-control run {pipeline.name}'"
        )
    return candidate.version


def _require_passed(platform: Platform, pipeline: Pipeline, version: str) -> Verdict:
    verdicts = platform.registry.models.verdicts(pipeline.name, version)
    passed = [verdict for verdict in verdicts if verdict.passed]
    if not passed:
        raise NotProven(
            f"{pipeline.name} model {version[:12]}",
            "there is no passing verdict for it to approve",
            f"see its gates in 'ml-control models {pipeline.name}'",
        )
    return passed[0]
