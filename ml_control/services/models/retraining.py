"""Whether to train now: the observation behind the pure decision, and what is kept of it."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from functools import partial
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import ModelVersion
from ml_control.core.retraining import (
    Asking,
    Decision,
    Observation,
    called,
    decide,
    redeploying,
    requested,
)
from ml_control.core.training_state import TrainingState
from ml_control.platform import Platform
from ml_control.services.alerts import clear_alerts, raise_alert
from ml_control.services.arrivals.requests import awaited
from ml_control.services.data.new_data import new_data
from ml_control.services.models.measures import measure

BACKFILL_STAGE = "backfill"


def observe_and_decide(
    platform: Platform,
    pipeline: Pipeline,
    *,
    ingesting: int,
    training: bool,
    deploying: bool = False,
) -> tuple[Observation, Decision]:
    """Look at the registry and decide; Dagster's runs in flight are told by the caller."""
    registry = platform.registry
    model = registry.models.candidate(pipeline.name)
    data = new_data(platform, pipeline, model)
    measured = [data.drift] if data.drift is not None else []
    measured += measure(platform, pipeline)
    seen = Observation(
        published=data.digest,
        ingesting=ingesting,
        waiting=len(awaited(platform, pipeline)),
        training=training or registry.leases.holder(pipeline.name, "model") is not None,
        backfilling=registry.leases.holder(pipeline.name, BACKFILL_STAGE) is not None,
        undeployed=not deploying and _undeployed(platform, pipeline, model),
        now=registry.clock(),
        trained=model.dataset.digest if model else None,
        new_rows=data.rows,
        first_published=data.first,
        last_published=data.last,
        paused=registry.rollouts.get(pipeline.name).paused,
        measured=tuple(measured),
    )
    state = registry.models.training(pipeline.name)
    return seen, decide(state, seen, pipeline.spec.retrain)


def take_calls(platform: Platform, pipeline: Pipeline) -> int:
    """Latch schedules' events, each once, before they are dropped at their source; how many."""
    registry, name = platform.registry, pipeline.name
    calls = platform.notifications.calls(name)
    new = 0
    for call in calls:
        now, event = registry.clock(), call.id
        new += registry.models.note_call(name, event, partial(called, event=event, now=now))
    platform.notifications.drop(calls)
    return new


def keep(
    platform: Platform, before: TrainingState, seen: Observation, decision: Decision
) -> str | None:
    """Write down what was decided; the key of the run to ask for, if one is to be.

    Written before the run is asked for: if that is lost, a later tick tries again. None as well
    when the state moved since it was read, such as by a training that ended: the next tick decides
    anew.
    """
    after = decision.state
    if decision.redeploy:
        after = redeploying(after, decision.attempt, seen.now)
    elif decision.train and seen.published is not None:
        after = requested(after, seen.published, decision.attempt, decision.because, seen.now)
    if after != before and not platform.registry.models.move_training(before, after):
        return None
    if not decision.train or seen.published is None:
        return None
    return f"{seen.published[:24]}:{decision.attempt}:{seen.now:.0f}:{secrets.token_hex(4)}"


def tell(platform: Platform, pipeline: Pipeline, seen: Observation, decision: Decision) -> None:
    """Raise the alerts that the decision calls for, once each, and clear those that are over."""
    name = pipeline.name
    if decision.halted and seen.published is not None:
        raise_alert(
            platform,
            name,
            "training-halted",
            f"dataset {seen.published[:12]}",
            f"training was {decision.because}",
            f"see its runs in Dagster, then 'ml-control run {name}'",
        )
    elif decision.train or decision.ended:
        clear_alerts(platform, name, "training-halted")
    _tell_of_drift(platform, pipeline, decision)


def _tell_of_drift(platform: Platform, pipeline: Pipeline, decision: Decision) -> None:
    """One alert for each kind of drift and model, until it is over or another model has it."""
    shown = {one.kind: one for one in decision.triggers}
    wanted = pipeline.spec.retrain.on_drift
    lasting = {
        f"{one.kind} of {one.subject[:12]}": shown[one.kind].because
        for one in decision.state.triggers
        # New partitions that drifted are shown by their checks; here they matter as a trigger.
        if one.kind in ("live drift", "prediction drift", "quality")
        or (one.kind == "partition drift" and wanted and not one.trained)
    }
    for alert in platform.registry.alerts.open(pipeline.name):
        if alert.kind == "drift" and alert.key.partition("#")[2] not in lasting:
            platform.registry.alerts.clear(alert)
    then = "it is retrained on by itself once there is other data" if wanted else "see the report"
    for subject, because in lasting.items():
        raise_alert(
            platform,
            pipeline.name,
            "drift",
            subject,
            because,
            f"{then}; or 'ml-control run {pipeline.name}'",
        )


def shown(decision: Decision) -> dict[str, Any]:
    """The decision as ``status --json`` shows it."""
    by_kind = {one.kind: one for one in decision.triggers}
    rows = by_kind.get("rows")
    drifts = [
        one
        for one in decision.triggers
        if one.kind in ("partition drift", "live drift", "prediction drift") and one.worst
    ]
    worst = max(drifts, key=lambda one: one.value or 0.0, default=None)
    return {
        "decision": "train" if decision.train else "wait",
        "because": decision.because,
        "rows_since": int(rows.value or 0) if rows else 0,
        "scheduled": decision.scheduled,
        "worst": {"feature": worst.worst, "psi": worst.value, "in": worst.kind} if worst else None,
        "budget_left": decision.budget,
        "not_before": decision.not_before,
        "triggers": [_trigger(one) for one in decision.triggers],
    }


def _trigger(one: Asking) -> dict[str, Any]:
    return asdict(one)


def _undeployed(platform: Platform, pipeline: Pipeline, candidate: ModelVersion | None) -> bool:
    """Whether a run died between a passing verdict and anything that is done with the model.

    What is in a variant, was judged live, waits for another rollout or for a person is not meant.
    """
    if candidate is None:
        return False
    rollout = platform.registry.rollouts.get(pipeline.name)
    there = {entry.model_version for entry in rollout.variants.values()}
    judged = {*rollout.rolled_back, *rollout.set_aside}
    if candidate.version in {rollout.champion, *there, *judged}:
        return False
    if rollout.state != "idle" or pipeline.spec.gates.approval.manual:
        return False
    verdicts = platform.registry.models.verdicts(pipeline.name, candidate.version)
    return bool(verdicts) and verdicts[0].passed
