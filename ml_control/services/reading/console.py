"""What the console shows, as plain data: read from the registry, nothing heavy, nothing written."""

from __future__ import annotations

from typing import Any

from ml_control.core.digests import short
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Rollout, Verdict
from ml_control.errors import MlControlError, NotProven
from ml_control.platform import Platform
from ml_control.services.reading.timeline import history
from ml_control.services.reading.views import status

TIMELINE = 40


def overview(platform: Platform, pipelines: list[Pipeline]) -> list[dict[str, Any]]:
    """One line for each pipeline: what is live, what is under way, what needs a person."""
    lines: list[dict[str, Any]] = []
    for pipeline in pipelines:
        try:
            rollout = platform.registry.rollouts.get(pipeline.name)
            alerts = platform.registry.alerts.open(pipeline.name)
        except MlControlError as error:
            lines.append({"name": pipeline.name, "error": str(error)})
            continue
        lines.append(
            {
                "name": pipeline.name,
                "description": pipeline.spec.description,
                "champion": short(rollout.champion) if rollout.champion else None,
                "variant": rollout.live,
                "state": rollout.state,
                "phase": rollout.phase,
                "split": split(rollout),
                "paused": rollout.paused,
                "alerts": len(alerts),
            }
        )
    return lines


def page(platform: Platform, pipeline: Pipeline, ui: str | None) -> dict[str, Any]:
    """Everything on a pipeline's page. ``ui``: address of the Dagster UI, if one runs."""
    registry = platform.registry
    now = status(platform, pipeline)
    rollout = registry.rollouts.get(pipeline.name)
    evidence, _ = registry.experiments.evidence(pipeline.name, rollout.id)
    versions = {v.model_version for v in rollout.variants.values()}
    return {
        **now,
        "split": split(rollout),
        "record": rollout.to_json(),
        "curve": evidence.points if evidence else (),
        "metric": pipeline.spec.rollout.metric.name,
        "judgement": evidence.judgement if evidence else None,
        "verdicts": {v: _newest(platform, pipeline, v) for v in sorted(versions) if v},
        "timeline": history(platform, pipeline, limit=TIMELINE, ui=ui or "")["decisions"][::-1],
        "alerts_open": [
            {"kind": a.kind, "object": a.object, "reason": a.reason, "next": a.next, "at": a.at}
            for a in registry.alerts.open(pipeline.name)
        ],
        "links": links(pipeline, ui),
        "at": registry.clock(),
    }


def report(platform: Platform, pipeline: Pipeline, which: str) -> bytes:
    """The report of the candidate or of a variant's model. Raises ``NotProven`` without one."""
    if which == "candidate":
        candidate = platform.registry.models.candidate(pipeline.name)
        version = candidate.version if candidate else ""
    else:
        entry = platform.registry.rollouts.get(pipeline.name).variants.get(which)
        version = entry.model_version if entry else ""
    if not version:
        step = f"run 'ml-control run {pipeline.name}'"
        raise NotProven(f"{pipeline.name} {which}", "there is no model of it", step)
    model = platform.registry.models.get(pipeline.name, version)
    return platform.lake.get(f"{model.prefix}/report.html")


def split(rollout: Rollout) -> list[dict[str, Any]]:
    """Each variant with its role, model and share of the traffic, the champion's first."""
    found = []
    for name, entry in rollout.variants.items():
        champion = entry.model_version == rollout.champion
        role = "champion" if champion else "challenger" if name == rollout.challenger else "idle"
        found.append(
            {
                "variant": name,
                "role": role,
                "model_version": entry.model_version,
                "weight": rollout.weights.get(name, 0.0),
                "kept": name in rollout.losing_since,
            }
        )
    return sorted(found, key=lambda one: (one["role"] != "champion", one["variant"]))


def links(pipeline: Pipeline, ui: str | None) -> dict[str, str]:
    """Pages of the Dagster UI about this pipeline."""
    if not ui:
        return {}
    group = f"{ui}/locations/ml_control/asset-groups/{pipeline.name}/lineage"
    assets = {
        name: f"{ui}/assets/{pipeline.name}/{name}"
        for name in ("raw", "processed", "model", "endpoint", "ab_config")
    }
    return {"lineage": group, **assets}


def _newest(platform: Platform, pipeline: Pipeline, version: str) -> Verdict | None:
    verdicts = platform.registry.models.verdicts(pipeline.name, version)
    return verdicts[0] if verdicts else None
