"""What is, what was, and why: read-only answers for the CLI and HTTP, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Decision, ModelVersion, Verdict
from ml_control.core.tuning import Trial, best_of
from ml_control.platform import Platform
from ml_control.services.reconcile import endpoint_name, unproven
from ml_control.services.requests import given_up, waiting
from ml_control.services.retraining import observe_and_decide


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
        "verdict": _verdict(verdicts[0]) if verdicts else None,
        "ledger": registry.ledger.counts(pipeline.name),
        "waiting": waiting(platform, pipeline),
        "alerts": _alerts(platform, pipeline),
        "partitions": {
            "published": sum(state.processed is not None for state in partitions),
            "refused": sorted(state.partition for state in partitions if state.refused),
            "given_up": sorted(given_up(platform, pipeline)),
        },
        "retrain": {
            "decision": "train" if decision.train else "wait",
            "because": decision.because,
        },
        "rollout": rollout.to_json(),
        "paused": rollout.paused or not pipeline.spec.retrain.automatic,
    }


def _alerts(platform: Platform, pipeline: Pipeline) -> dict[str, Any]:
    """How many alerts are open, and the newest of them."""
    found = platform.registry.alerts.open(pipeline.name)
    newest = asdict(found[0].alert()) if found else None
    return {"open": len(found), "newest": newest}


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


def _verdict(verdict: Verdict) -> dict[str, Any]:
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
                "verdict": _verdict(verdicts[0]) if verdicts else None,
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
            shown = trial.to_json()
            shown["rounds"] = len(shown.pop("curve"))
            found.append({**shown, "best": trial == best})
    return found


def history(platform: Platform, pipeline: Pipeline, *, verify: bool) -> dict[str, Any]:
    """Every decision, oldest first. With ``verify`` the hash chain is checked (``Unknown``)."""
    registry = platform.registry
    checked = registry.history.verify(pipeline.name) if verify else None
    return {
        "pipeline": pipeline.name,
        "decisions": [item.to_json() for item in registry.history.decisions(pipeline.name)],
        "verified": checked,
    }


def live_at(platform: Platform, pipeline: Pipeline, at: float) -> Decision | None:
    """The promotion that was in force at a time (UTC seconds), or None before the first."""
    found = None
    for decision in platform.registry.history.decisions(pipeline.name):
        if decision.at > at:
            break
        if decision.action == "promoted":
            found = decision
    return found


def why(platform: Platform, pipeline: Pipeline) -> dict[str, Any]:
    """The causal chain behind what is live: objects, partitions, model, verdict, promotion."""
    registry = platform.registry
    champion = registry.rollouts.get(pipeline.name).champion
    if champion is None:
        candidate = registry.models.candidate(pipeline.name)
        verdicts = registry.models.verdicts(pipeline.name, candidate.version) if candidate else []
        training = registry.models.training(pipeline.name)
        return {
            "pipeline": pipeline.name,
            "live": None,
            "because": f"the candidate's verdict is no: {', '.join(verdicts[0].failed)}"
            if verdicts and not verdicts[0].passed
            else training.reason or "nothing was deployed yet",
        }
    model = registry.models.get(pipeline.name, champion)
    passed = [v for v in registry.models.verdicts(pipeline.name, champion) if v.passed]
    promotions = [
        item
        for item in registry.history.decisions(pipeline.name)
        if item.action == "promoted" and item.subject == champion
    ]
    return {
        "pipeline": pipeline.name,
        "live": champion,
        "promoted": promotions[-1].to_json() if promotions else None,
        "verdict": _verdict(passed[0]) if passed else None,
        "training_job": model.training_job,
        "runs": {"trained": model.run, "promoted": promotions[-1].actor if promotions else None},
        "partitions": _partitions(platform, model),
    }


def _partitions(platform: Platform, model: ModelVersion) -> list[dict[str, Any]]:
    from ml_control.services.dataset import load_processed, raw_manifest_path

    raw: dict[tuple[str, str], list[str]] = {}
    found = []
    for part in model.dataset.parts:
        manifest = load_processed(platform, part.path, part.digest)
        path = raw_manifest_path(model.pipeline, part.partition, manifest.raw_digest)
        key = (part.partition, manifest.raw_digest)
        if key not in raw:
            raw[key] = _objects(platform, path)
        found.append(
            {
                "partition": part.partition,
                "data_version": part.digest,
                "rows": part.rows,
                "objects": raw[key],
            }
        )
    return found


def _objects(platform: Platform, path: str) -> list[str]:
    from ml_control.core.records import RawManifest

    manifest = RawManifest.model_validate_json(platform.lake.get(path))
    return [item.key for item in manifest.objects]
