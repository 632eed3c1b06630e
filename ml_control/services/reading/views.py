"""What is: read-only answers for the CLI and HTTP, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Verdict
from ml_control.core.tuning import Trial, best_of
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.ports import Alarm
from ml_control.services.arrivals.requests import given_up, waiting
from ml_control.services.models.retraining import observe_and_decide, shown
from ml_control.services.releases.reconcile import endpoint_name, unproven
from ml_control.services.releases.rollout.alarms import read_alarms


def status(platform: Platform, pipeline: Pipeline) -> dict[str, Any]:
    """One pipeline now: what is live, the candidate with its verdict, the ledger, what is next."""
    registry = platform.registry
    rollout = registry.rollouts.get(pipeline.name)
    candidate = registry.models.candidate(pipeline.name)
    verdicts = registry.models.verdicts(pipeline.name, candidate.version) if candidate else []
    _, decision = observe_and_decide(platform, pipeline, ingesting=0, training=False)
    partitions = list(registry.partitions.all(pipeline.name))
    return {
        "name": pipeline.name,
        "live": _variant(platform, pipeline, rollout.live) if rollout.live else None,
        "variants": {name: _variant(platform, pipeline, name) for name in sorted(rollout.variants)},
        "unknown": [error.to_dict() for error in unproven(platform, pipeline).values()],
        "candidate": candidate.version if candidate else None,
        "report": platform.lake.uri(f"{candidate.prefix}/report.html") if candidate else None,
        "verdict": verdict_told(verdicts[0]) if verdicts else None,
        "ledger": registry.ledger.counts(pipeline.name),
        "waiting": waiting(platform, pipeline),
        "alerts": _alerts(platform, pipeline),
        "alarms": _alarms(platform, pipeline),
        "partitions": {
            "published": sum(state.processed is not None for state in partitions),
            "refused": sorted(state.partition for state in partitions if state.refused),
            "given_up": sorted(given_up(platform, pipeline)),
        },
        "retrain": shown(decision),
        "rollout": rollout.to_json(),
        "paused": rollout.paused or not pipeline.spec.retrain.automatic,
    }


def _alerts(platform: Platform, pipeline: Pipeline) -> dict[str, Any]:
    """How many alerts are open, and the newest of them."""
    found = platform.registry.alerts.open(pipeline.name)
    newest = asdict(found[0].alert()) if found else None
    return {"open": len(found), "newest": newest}


def _alarms(platform: Platform, pipeline: Pipeline) -> list[dict[str, Any]]:
    """The alarms that are guardrails of rollouts, where the platform watches any."""
    try:
        return [asdict(alarm) for alarm in read_alarms(platform, pipeline)]
    except MlControlError as error:
        names = pipeline.spec.rollout.guardrails.alarms
        return [asdict(Alarm(name, "missing", reason=error.reason)) for name in sorted(names)]


def _variant(platform: Platform, pipeline: Pipeline, name: str) -> dict[str, Any]:
    rollout = platform.registry.rollouts.get(pipeline.name)
    state = platform.endpoints.describe(endpoint_name(pipeline, name))
    return {
        "variant": name,
        "endpoint": endpoint_name(pipeline, name),
        "state": state.state,
        "url": state.url,
        "model_version": rollout.variants[name].model_version,
        "weight": rollout.weights.get(name, 0.0),
    }


def verdict_told(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data, without its evidence."""
    return {
        "passed": verdict.passed,
        "metrics": verdict.metrics,
        "failed": verdict.failed,
        "champion": verdict.champion,
        "gates": [
            {
                "name": gate.name,
                "passed": gate.passed,
                "observed": gate.observed,
                "required": gate.required,
                "reason": gate.reason,
            }
            for gate in verdict.gates
        ],
    }


def models(platform: Platform, pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every model version, newest first, with its newest verdict."""
    registry = platform.registry
    champion = registry.rollouts.get(pipeline.name).champion
    found = []
    for model in registry.models.all(pipeline.name):
        verdicts = registry.models.verdicts(pipeline.name, model.version)
        found.append(
            {
                "version": model.version,
                "live": model.version == champion,
                "created_at": model.created_at,
                "rows": model.dataset.rows,
                "partitions": [part.partition for part in model.dataset.parts],
                "container": model.container,
                "training_job": model.training_job,
                "rounds_kept": model.best_iteration + 1,
                "verdict": verdict_told(verdicts[0]) if verdicts else None,
                "report": platform.lake.uri(f"{model.prefix}/report.html"),
            }
        )
    return found


def trials(platform: Platform, pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every trial of every search for hyperparameters, search by search; the best is marked."""
    studies: dict[str, list[Trial]] = {}
    for body in platform.registry.models.study(pipeline.name, ""):
        trial = Trial.model_validate(body)
        studies.setdefault(trial.study, []).append(trial)
    found = []
    for made in studies.values():
        best = best_of(made)
        for trial in made:
            told = trial.to_json()
            told["rounds"] = len(told.pop("curve"))
            found.append({**told, "best": trial == best})
    return found
