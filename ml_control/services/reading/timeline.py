"""The timeline of a pipeline and what was live at a time: read-only, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Any

from ml_control.core import retraining
from ml_control.core.pipeline import Pipeline
from ml_control.core.records import Decision, ModelVersion, Rollout
from ml_control.core.timeline import Moment, change_of, kind_of, moment, rollout_of, run_of
from ml_control.errors import NotProven
from ml_control.platform import Platform


def history(
    platform: Platform,
    pipeline: Pipeline,
    *,
    verify: bool = False,
    limit: int | None = 100,
    before: int | None = None,
    ui: str = "",
) -> dict[str, Any]:
    """The newest decisions, oldest first, each with what it was, its run and what it changed.

    At most ``limit`` of them are read, those before a sequence number if one is named; ``next``
    names the one to go on with, None when that was all. With ``verify`` the whole chain of hashes
    is checked first (``Unknown``).
    """
    registry = platform.registry
    checked = registry.history.verify(pipeline.name) if verify else None
    # One more than is shown: what the first one changed is told by the one before it.
    read = islice(registry.history.newest(pipeline.name, before), limit + 1 if limit else None)
    found = list(read)[::-1]
    cut = bool(limit) and len(found) > (limit or 0)
    shown = found[1:] if cut else found
    rollout = _last_rollout(found[:1]) if cut else None
    told = []
    for decision in shown:
        told.append(_told(decision, rollout, ui))
        rollout = _last_rollout([decision]) or rollout
    return {
        "pipeline": pipeline.name,
        "decisions": told,
        "verified": checked,
        "next": shown[0].seq if cut else None,
    }


def _last_rollout(decisions: list[Decision]) -> Rollout | None:
    found = [record[0] for d in decisions if (record := rollout_of(d)) is not None]
    return found[-1] if found else None


def _told(decision: Decision, before: Rollout | None, ui: str) -> dict[str, Any]:
    record = rollout_of(decision)
    run = run_of(decision)
    return {
        **decision.to_json(),
        "kind": kind_of(decision),
        "changed": change_of(before, record[0]) if record is not None else "",
        "run": run,
        "url": run_url(ui, run),
    }


def note_asked(
    platform: Platform, pipeline: Pipeline, dataset: str, decision: retraining.Decision
) -> None:
    """Leave word in the history that a training was asked for, and what asked for it."""
    platform.registry.history.append(
        pipeline.name,
        "training asked",
        dataset,
        decision.because,
        actor=f"{pipeline.name}__retraining",
        details={
            "attempt": decision.attempt,
            "redeploy": decision.redeploy,
            "triggers": [asdict(one) for one in decision.triggers if one.holds],
        },
    )


def run_url(ui: str, run: str | None) -> str | None:
    """Where Dagster shows a run; None when it does not run, or no run did it."""
    return f"{ui}/runs/{run}" if ui and run else None


def live_at(platform: Platform, pipeline: Pipeline, at: float, *, ui: str = "") -> dict[str, Any]:
    """Exactly what was live at a time (UTC seconds), rebuilt from the decisions alone.

    The champion with its variant, the split, the experiment in progress, the champion's verdict and
    data, who put it there and why.
    """
    found = moment(platform.registry.history.newest(pipeline.name), at)
    rollout = found.rollout
    return {
        "at": at,
        "pipeline": pipeline.name,
        "live": _live(platform, pipeline, found, ui),
        "weights": rollout.weights if rollout else {},
        "experiment": _experiment(rollout) if rollout else None,
        "paused": rollout.paused if rollout else False,
        "halted_because": rollout.halted_because if rollout else "",
        "stopped": [_decision(decision, ui) for decision in found.stopped],
        "rollout": rollout.to_json() if rollout and found.whole else None,
        "whole": found.whole,
        "decision": _decision(found.wrote, ui) if found.wrote else None,
    }


def _live(platform: Platform, pipeline: Pipeline, found: Moment, ui: str) -> dict[str, Any] | None:
    """The champion at that time, if it had traffic and was not stopped."""
    rollout, variant = found.rollout, found.rollout.live if found.rollout else None
    if rollout is None or variant is None or variant not in rollout.variants:
        return None
    if any(decision.details.get("variant") == variant for decision in found.stopped):
        return None
    entry = rollout.variants[variant]
    crowned = found.crowned
    return {
        "subject": entry.model_version,
        "variant": variant,
        "endpoint": entry.endpoint,
        "since": crowned.at if crowned else None,
        "because": crowned.because if crowned else "",
        "by": _decision(crowned, ui) if crowned else None,
        "verdict": _verdict(platform, pipeline, entry.model_version, entry.verdict),
        "dataset": _dataset(platform, pipeline, entry.model_version),
    }


def _experiment(rollout: Rollout) -> dict[str, Any] | None:
    """The rollout in progress: who is judged, how, and since when."""
    if rollout.state == "idle" or rollout.challenger is None:
        return None
    entry = rollout.variants.get(rollout.challenger)
    return {
        "id": rollout.id,
        "strategy": rollout.strategy,
        "phase": rollout.phase,
        "state": rollout.state,
        "challenger": rollout.challenger,
        "model_version": entry.model_version if entry else None,
        "share": rollout.share,
        "step": rollout.step,
        "started_at": rollout.started_at,
    }


def _decision(decision: Decision, ui: str) -> dict[str, Any]:
    run = run_of(decision)
    return {
        "seq": decision.seq,
        "at": decision.at,
        "action": decision.action,
        "subject": decision.subject,
        "because": decision.because,
        "actor": decision.actor,
        "run": run,
        "url": run_url(ui, run),
    }


def _verdict(
    platform: Platform, pipeline: Pipeline, version: str, key: str
) -> dict[str, Any] | None:
    for verdict in platform.registry.models.verdicts(pipeline.name, version):
        if verdict.key == key:
            return {
                "key": key,
                "passed": verdict.passed,
                "metrics": verdict.metrics,
                "failed": verdict.failed,
                "gates": len(verdict.gates),
                "at": verdict.at,
            }
    return None


def _dataset(platform: Platform, pipeline: Pipeline, version: str) -> dict[str, Any] | None:
    model = known_model(platform, pipeline, version)
    if model is None:
        return None
    return {
        "digest": model.dataset.digest,
        "rows": model.dataset.rows,
        "partitions": [part.partition for part in model.dataset.parts],
    }


def known_model(platform: Platform, pipeline: Pipeline, version: str) -> ModelVersion | None:
    """The record of a model version; None when the registry has none (it was restored)."""
    try:
        return platform.registry.models.get(pipeline.name, version)
    except NotProven:
        return None
