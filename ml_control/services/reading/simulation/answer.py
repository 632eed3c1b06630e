"""What would have happened beside what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ml_control.core.experiment import ArmCounts, Observed
from ml_control.core.outcomes import value_of
from ml_control.core.pipeline import Pipeline
from ml_control.core.simulation import Decided, replay_experiment, replay_trainings
from ml_control.platform import Platform
from ml_control.ports import Joined, Traffic
from ml_control.services.reading.simulation.records import (
    Trial,
    happenings,
    real_trainings,
    recorded,
    row_counter,
)
from ml_control.services.releases.rollout.evidence import arm_of, settings_of

_BATCH = 1000
_ENDS = {"promoted": "promote", "rolled_back": "roll_back", "kept": "inconclusive"}
ASSUMED = (
    "a training that was asked for takes as long as trainings took, and passes its gates",
    "drift and quality are as they were measured when they asked for a training",
    "errors and slow answers of a rollout came evenly over its outcomes",
)


def simulate(
    platform: Platform, pipeline: Pipeline, made: dict[str, Any], since: float | None = None
) -> dict[str, Any]:
    """What the pipeline's policies would have done, and when, beside what was really done.

    ``pipeline`` has the settings to try, ``made`` names the changes. Nothing is written; the same
    history and settings give the same answer. With ``since`` only what is at or after that time is
    told; the replay itself always begins at the beginning.
    """
    found = recorded(platform, pipeline)
    extents = _extents(platform, pipeline)
    until = max([found.newest, *(one.newest for one in extents.values())])
    asked = replay_trainings(
        pipeline.name,
        happenings(platform, pipeline, found),
        pipeline.spec.retrain,
        window=pipeline.spec.training.window.partitions,
        duration=found.duration,
        new_rows=row_counter(platform, pipeline),
        until=until,
    )
    begin = since if since is not None else float("-inf")
    return {
        "pipeline": pipeline.name,
        "changed": made,
        "since": since,
        "until": until,
        "trainings": {
            "simulated": [asdict(one) for one in asked if one.at >= begin],
            "real": [one for one in real_trainings(found) if one["at"] >= begin],
        },
        "experiments": [
            _experiment(platform, pipeline, trial, extents.get(name), until)
            for name, trial in found.trials.items()
            if trial.begins.at >= begin
        ],
        "assumed": list(ASSUMED),
    }


@dataclass
class _Extent:
    """Where a rollout's outcomes lie in the log."""

    first: int
    last: int
    newest: float
    outcomes: int  # first ones of an entity, with a value of the metric
    told: int  # first ones of an entity


def _extents(platform: Platform, pipeline: Pipeline) -> dict[str, _Extent]:
    """One pass over the log: where each rollout's outcomes begin and end, and how many they are."""
    found: dict[str, _Extent] = {}
    for one in _joined(platform, pipeline, 0, None):
        counts = _observed(pipeline, one) is not None
        known = found.get(one.rollout_id)
        if known is None:
            found[one.rollout_id] = _Extent(
                one.offset, one.offset, one.told_at, int(counts), int(one.first)
            )
        else:
            known.last = one.offset
            known.newest = max(known.newest, one.told_at)
            known.outcomes += counts
            known.told += one.first
    return found


def _joined(
    platform: Platform, pipeline: Pipeline, after: int, last: int | None
) -> Iterator[Joined]:
    while batch := platform.log.joined(pipeline.name, after, _BATCH):
        for one in batch:
            if last is not None and one.offset > last:
                return
            yield one
        after = batch[-1].offset


def _observed(pipeline: Pipeline, one: Joined) -> Observed | None:
    if not one.first or not 0.0 < one.share < 1.0:
        return None
    value = value_of(pipeline.spec.rollout.metric, one.label, one.score, one.outcome)
    return None if value is None else Observed(one.offset, one.challenger, one.share, value)


def _experiment(
    platform: Platform, pipeline: Pipeline, trial: Trial, extent: _Extent | None, until: float
) -> dict[str, Any]:
    rollout = trial.rollout
    entry = rollout.variants.get(rollout.challenger or "")
    told: dict[str, Any] = {
        "rollout": rollout.id,
        "strategy": rollout.strategy,
        "model_version": entry.model_version if entry else None,
        "champion": rollout.champion,
        "began": trial.begins.at,
        "real": _real(trial),
        "simulated": None,
        "points": [],
        "because": "",
    }
    if rollout.strategy != "ab_test":
        told["because"] = f"{rollout.strategy} decides by time and alarms, which are not replayed"
        return told
    if extent is None:
        told["because"] = "no outcome of it is in the log"
        return told
    evidence, _ = platform.registry.experiments.evidence(pipeline.name, rollout.id)
    state = evidence.experiment if evidence else {}
    counted = int(state.get("champion_samples", 0)) + int(state.get("challenger_samples", 0))
    # Of all outcomes: another metric may have a value for fewer of them.
    if counted > extent.told:
        told["because"] = f"the log kept {extent.told} of its {counted} outcomes"
        return told
    done = replay_experiment(
        _outcomes(platform, pipeline, rollout.id, extent),
        settings_of(pipeline),
        started_at=rollout.started_at,
        total=extent.outcomes,
        counts=_counts(platform, pipeline, rollout.id),
        until=until,
    )
    told["simulated"], told["because"] = _decided(done), done.because
    told["points"] = [asdict(point) for point in done.points]
    return told


def _outcomes(
    platform: Platform, pipeline: Pipeline, rollout: str, extent: _Extent
) -> Iterator[tuple[Observed, float]]:
    for one in _joined(platform, pipeline, extent.first - 1, extent.last):
        if one.rollout_id == rollout and (seen := _observed(pipeline, one)) is not None:
            yield seen, one.told_at


def _counts(
    platform: Platform, pipeline: Pipeline, rollout: str
) -> Callable[[float], tuple[ArmCounts, ArmCounts]]:
    """Both arms' counts when a share of the outcomes was there: evenly, as far as is known."""
    traffic = platform.log.traffic(pipeline.name, rollout)
    limit = pipeline.spec.rollout.guardrails.latency_p99
    whole = [arm_of(traffic.get(name, Traffic()), limit) for name in ("champion", "challenger")]

    def at(share: float) -> tuple[ArmCounts, ArmCounts]:
        if share >= 1.0:
            return whole[0], whole[1]
        entities = [int(arm.entities * share) for arm in whole]
        expected = sum(arm.expected_entities for arm in whole)
        scale = sum(entities) / expected if expected else 0.0
        first, second = (
            ArmCounts(
                entities=count,
                expected_entities=arm.expected_entities * scale,
                requests=int(arm.requests * share),
                errors=int(arm.errors * share),
                slow=int(arm.slow * share),
            )
            for arm, count in zip(whole, entities, strict=True)
        )
        return first, second

    return at


def _decided(done: Decided) -> dict[str, Any]:
    said = done.judgement
    return {
        "decision": done.decision,
        "at": done.at,
        "outcomes": done.outcomes,
        "offset": done.offset,
        "because": done.because,
        "estimate": said.estimate if said else None,
        "low": said.low if said else None,
        "high": said.high if said else None,
        "samples": said.samples if said else {},
    }


def _real(trial: Trial) -> dict[str, Any] | None:
    ends = trial.ends
    if ends is None:
        return None
    return {
        "decision": _ENDS.get(ends.action, ends.action),
        "at": ends.at,
        "because": ends.because,
        "by": ends.actor,
    }
