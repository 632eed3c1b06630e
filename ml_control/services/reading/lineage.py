"""Why a model is live, what became of an object, and who answered a request: the causal chain."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Decision, Event, ModelVersion, RawManifest, Verdict
from ml_control.core.timeline import Span, about, kind_of, rollout_of, run_of, spans
from ml_control.errors import BadObject
from ml_control.platform import Platform
from ml_control.services.reading.timeline import known_model, live_at, run_url
from ml_control.services.reading.views import verdict_told

_SHOWN = 100  # decisions about one model
_CACHED = 256  # raw manifests held at once


def why(
    platform: Platform, pipeline: Pipeline, version: str | None = None, *, ui: str = ""
) -> dict[str, Any]:
    """The chain behind a model: objects, data, checks, trigger, training, verdict, rollout, live.

    The champion's unless a version is named. When nothing is live: why not. Raises ``NotProven``
    for an unknown version.
    """
    registry = platform.registry
    champion = registry.rollouts.get(pipeline.name).champion
    if version is None and champion is None:
        return {"pipeline": pipeline.name, "live": None, "because": _not_live(platform, pipeline)}
    model = registry.models.get(pipeline.name, version or champion or "")
    told, served = _told(platform, pipeline, model)
    kinds: dict[str, list[Decision]] = {}
    for decision in told:
        kinds.setdefault(kind_of(decision), []).append(decision)
    verdicts = registry.models.verdicts(pipeline.name, model.version)
    passed = [v for v in verdicts if v.passed]
    # The one that it was deployed on, where it was: later questions may have been asked since.
    deployed = [v for v in passed if v.key in _deployed_on(told, model.version)]
    verdict = next(iter([*deployed, *passed, *verdicts]), None)
    promoted = kinds.get("promoted", [])
    live = model.version == champion
    return {
        "pipeline": pipeline.name,
        "live": model.version if live else None,
        "model_version": model.version,
        "served": [asdict(span) for span in served],
        "promoted": promoted[-1].to_json() if promoted else None,
        "rollout": [
            _decision(decision, ui)
            for decision in told
            if kind_of(decision) not in ("gated", "training", "approval")
        ],
        "approval": [_decision(decision, ui) for decision in kinds.get("approval", [])],
        "verdict": {**verdict_told(verdict), "key": verdict.key} if verdict else None,
        "gated": [_decision(decision, ui) for decision in kinds.get("gated", [])],
        "trigger": _trigger(kinds.get("training", []), model, ui),
        "training_job": model.training_job,
        "dataset": model.dataset.digest,
        "runs": {"trained": model.run, "promoted": promoted[-1].actor if promoted else None},
        "urls": {
            "trained": run_url(ui, model.run),
            "promoted": run_url(ui, run_of(promoted[-1]) if promoted else None),
        },
        "partitions": _partitions(platform, model, verdict),
    }


def _not_live(platform: Platform, pipeline: Pipeline) -> str:
    models = platform.registry.models
    candidate = models.candidate(pipeline.name)
    verdicts = models.verdicts(pipeline.name, candidate.version) if candidate else []
    if verdicts and not verdicts[0].passed:
        return f"the candidate's verdict is no: {', '.join(verdicts[0].failed)}"
    return models.training(pipeline.name).reason or "nothing was deployed yet"


def _told(
    platform: Platform, pipeline: Pipeline, model: ModelVersion
) -> tuple[list[Decision], list[Span]]:
    """The decisions about a model, and those that asked for its data to be trained on."""
    kept: deque[Decision] = deque(maxlen=_SHOWN)

    def watched() -> Iterator[Decision]:
        for decision in platform.registry.history.decisions(pipeline.name):
            asked = kind_of(decision) == "training" and decision.subject == model.dataset.digest
            if asked or about(decision, model.version):
                kept.append(decision)
            yield decision

    served = spans(watched()).get(model.version, [])
    return list(kept), served


def _deployed_on(told: list[Decision], version: str) -> set[str]:
    """Keys of the verdicts that the rollout named for a model's variant."""
    records = [record[0] for decision in told if (record := rollout_of(decision)) is not None]
    return {
        entry.verdict
        for rollout in records
        for entry in rollout.variants.values()
        if entry.model_version == version
    }


def _trigger(asked: list[Decision], model: ModelVersion, ui: str) -> dict[str, Any]:
    """What asked for the training: the last word before the model was made."""
    before = [decision for decision in asked if decision.at <= model.created_at]
    if before:
        return _decision(before[-1], ui)
    return {"because": "by a person, or by a run that left no word", "at": None}


def _decision(decision: Decision, ui: str) -> dict[str, Any]:
    run = run_of(decision)
    told = decision.to_json()
    evidence = {k: v for k, v in told["details"].items() if k not in ("record", "variants")}
    return {
        **{name: told[name] for name in ("seq", "at", "action", "subject", "because", "actor")},
        "details": evidence,
        "run": run,
        "url": run_url(ui, run),
    }


def _partitions(
    platform: Platform, model: ModelVersion, verdict: Verdict | None
) -> list[dict[str, Any]]:
    checks = {check["partition"]: check for check in (verdict.data_checks if verdict else ())}
    manifests = Manifests(platform)
    return [
        {
            "partition": part.partition,
            "data_version": part.digest,
            "rows": part.rows,
            "checks": checks.get(part.partition),
            "objects": [
                item.key
                for item in manifests.raw(
                    model.pipeline, part.partition, part.path, part.digest
                ).objects
            ],
        }
        for part in model.dataset.parts
    ]


@dataclass
class Manifests:
    """Raw manifests behind data versions, each read once as long as it is among the last used."""

    platform: Platform
    _known: dict[tuple[str, str], RawManifest] = field(default_factory=dict)

    def raw(self, pipeline: str, partition: str, path: str, digest: str) -> RawManifest:
        """The raw manifest that a processed one was made from. Raises ``BadObject``."""
        from ml_control.services.data.dataset import load_processed, raw_manifest_path

        key = (partition, digest)
        if key not in self._known:
            made = load_processed(self.platform, path, digest)
            place = raw_manifest_path(pipeline, partition, made.raw_digest)
            if len(self._known) >= _CACHED:
                self._known.clear()
            found = RawManifest.model_validate_json(self.platform.lake.get(place))
            self._known[key] = found
        return self._known[key]


def of_object(platform: Platform, pipeline: Pipeline, key: str, *, ui: str = "") -> dict[str, Any]:
    """From an object forward: what became of it, the models trained on it, and when they served.

    Raises ``BadObject`` when no event has this key.
    """
    registry = platform.registry
    events = [e for e in registry.ledger.events(pipeline.name) if _is(e, pipeline.name, key)]
    if not events:
        raise BadObject(
            f"{pipeline.name} object {key}",
            "no event has this key",
            f"see the keys in 'ml-control events {pipeline.name}'",
        )
    keys = {event.key for event in events}
    partitions = {event.partition for event in events}
    served = spans(registry.history.decisions(pipeline.name))
    manifests = Manifests(platform)
    models = []
    for model in registry.models.all(pipeline.name):
        versions = [
            item.version
            for part in model.dataset.parts
            if part.partition in partitions
            for item in manifests.raw(pipeline.name, part.partition, part.path, part.digest).objects
            if item.key in keys
        ]
        if versions:
            models.append(
                {
                    "version": model.version,
                    "created_at": model.created_at,
                    "object_versions": versions,
                    "training_job": model.training_job,
                    "run": model.run,
                    "url": run_url(ui, model.run),
                    "served": [asdict(span) for span in served.get(model.version, [])],
                }
            )
    return {
        "pipeline": pipeline.name,
        "object": key,
        "events": [event.to_json() for event in sorted(events, key=lambda e: e.recorded_at)],
        "models": models,
    }


def _is(event: Event, pipeline: str, key: str) -> bool:
    return event.key in (key, f"{pipeline}/{key}")


def of_request(
    platform: Platform, pipeline: Pipeline, request_id: str, *, ui: str = ""
) -> dict[str, Any]:
    """Which model answered a request, how it was routed, and the chain behind that model.

    Raises ``BadObject`` when the request is not logged (any more).
    """
    found = platform.log.find(pipeline.name, request_id)
    if found is None:
        raise BadObject(
            f"{pipeline.name} request {request_id[:80]}",
            f"is not in the prediction log of the last {platform.settings.log_days:g} days",
            "give a request id as an answer had it",
        )
    known = known_model(platform, pipeline, found.model_version) if found.served else None
    return {
        "pipeline": pipeline.name,
        "request": {
            "request_id": found.request_id,
            "entity_id": found.entity_id,
            "at": found.at,
            "rollout_id": found.rollout_id,
            "assigned": found.assigned,
            "challenger": found.challenger,
            "share": found.share,
            "served": found.served or None,
            "model_version": found.model_version or None,
            "failed": found.failed,
            "failure": found.failure,
            "rows": found.rows,
        },
        "then": live_at(platform, pipeline, found.at, ui=ui),
        "chain": why(platform, pipeline, known.version, ui=ui) if known else None,
    }
