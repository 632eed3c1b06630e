"""What really happened, read from the records in the order of time."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ml_control.core.pipeline import Pipeline
from ml_control.core.records import DatasetPart, Decision, ProcessedManifest, Rollout
from ml_control.core.retraining import Measured
from ml_control.core.simulation import Happening
from ml_control.core.timeline import kind_of, rollout_of, run_of
from ml_control.errors import MlControlError
from ml_control.platform import Platform
from ml_control.services.reading.lineage import Manifests

ASKED = "training asked"
_USUAL_SECONDS = 60.0  # of a training, where none was recorded
_MEASURED = ("partition drift", "live drift", "prediction drift", "quality")
_KEPT = 10_000


@dataclass
class Trial:
    """A rollout as it really went."""

    rollout: Rollout  # as it began
    begins: Decision
    ends: Decision | None = None


@dataclass
class Recorded:
    """What the history says of trainings and rollouts."""

    asked: list[Decision] = field(default_factory=list)
    gated: list[Decision] = field(default_factory=list)
    by_hand: list[Decision] = field(default_factory=list)
    pauses: list[Decision] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    newest: float = 0.0

    def duration(self, dataset: str) -> float:
        """How long a training of this dataset took, or usually takes."""
        usual = median(self.durations.values()) if self.durations else _USUAL_SECONDS
        return self.durations.get(dataset, usual)


def recorded(platform: Platform, pipeline: Pipeline) -> Recorded:
    """Read the chain once."""
    found, waiting = Recorded(), dict[str, float]()
    for decision in platform.registry.history.decisions(pipeline.name):
        found.newest = max(found.newest, decision.at)
        if decision.action == ASKED and not decision.details.get("redeploy"):
            found.asked.append(decision)
            waiting.setdefault(decision.subject, decision.at)
        elif kind_of(decision) == "gated":
            found.gated.append(decision)
            dataset = str(decision.details.get("dataset", ""))
            if dataset in waiting:
                found.durations[dataset] = max(decision.at - waiting.pop(dataset), 0.0)
            else:
                found.by_hand.append(decision)
        elif decision.action in ("paused", "resumed"):
            found.pauses.append(decision)
        _trial(found.trials, decision)
    if not found.asked:  # a history from before this was recorded: the policy may have done it all
        found.by_hand.clear()
    return found


def _trial(trials: dict[str, Trial], decision: Decision) -> None:
    record = rollout_of(decision)
    if record is None or not record[1]:
        return
    rollout = record[0]
    if rollout.state != "idle" and rollout.challenger is not None:
        if rollout.id not in trials:
            trials[rollout.id] = Trial(rollout, decision)
        return
    known = trials.get(rollout.id)
    if known is not None and known.ends is None:
        known.ends = decision


def real_trainings(found: Recorded) -> list[dict[str, Any]]:
    """The trainings that were asked for, and those that a person made, with what came of each."""
    verdicts = {str(d.details.get("dataset", "")): d.action.removeprefix("gated: ")
                for d in found.gated}  # fmt: skip
    told = [
        {
            "at": decision.at,
            "dataset": decision.subject,
            "because": decision.because,
            "outcome": verdicts.get(decision.subject),
            "by": "policy",
        }
        for decision in found.asked
    ]
    shown = found.by_hand if found.asked else found.gated
    told += [
        {
            "at": decision.at,
            "dataset": str(decision.details.get("dataset", "")),
            "because": "a person or a run asked for it" if found.asked else decision.because,
            "outcome": decision.action.removeprefix("gated: "),
            "by": "hand" if found.asked else "unknown",
        }
        for decision in shown
    ]
    return sorted(told, key=lambda one: float(one["at"]))


def happenings(platform: Platform, pipeline: Pipeline, found: Recorded) -> Iterator[Happening]:
    """Everything that the retraining policy would have seen, in the order of time."""
    times = _publications(platform, pipeline)
    streams = [
        _published(platform, times),
        iter(_arrivals(platform, pipeline, times)),
        iter(
            [Happening(d.at, "paused" if d.action == "paused" else "resumed") for d in found.pauses]
        ),
        _measured(found),
        iter(
            [
                Happening(
                    d.at,
                    "trained",
                    dataset=str(d.details.get("dataset", "")),
                    run=run_of(d) or d.actor,
                )
                for d in found.by_hand
            ]
        ),
    ]
    return heapq.merge(*streams, key=lambda one: one.at)


def _publications(platform: Platform, pipeline: Pipeline) -> list[tuple[float, str, str]]:
    """(time, partition, manifest key) of every data version ever published, oldest first.

    Their manifests are never removed. A newest one has its exact time in the registry; an older one
    was written just before it was published.
    """
    now = {state.partition: state.processed
           for state in platform.registry.partitions.all(pipeline.name)}  # fmt: skip
    prefix = f"processed/{pipeline.name}"
    found = []
    for key, at in platform.lake.dated(prefix).items():
        if not key.endswith("/manifest.json"):
            continue
        partition = key.split("/")[2].removeprefix("dt=")
        current = now.get(partition)
        if current is None or (key != current.path and at > current.at):
            continue  # written by a run that lost its lease before it published
        found.append((current.at if key == current.path else at, partition, key))
    return sorted(found)


def _published(platform: Platform, times: list[tuple[float, str, str]]) -> Iterator[Happening]:
    for at, partition, key in times:
        made = ProcessedManifest.model_validate_json(platform.lake.get(key))
        part = DatasetPart(partition=partition, digest=made.digest, path=key, rows=made.rows)
        yield Happening(at, "published", part=part, partition=partition)


def _arrivals(
    platform: Platform, pipeline: Pipeline, times: list[tuple[float, str, str]]
) -> list[Happening]:
    """When the first object of each publication was recorded: from then on it was waited for."""
    published: dict[str, list[float]] = {}
    for at, partition, _ in times:
        published.setdefault(partition, []).append(at)
    first: dict[tuple[str, int], float] = {}
    for event in platform.registry.ledger.events(pipeline.name):
        if event.state not in ("done", "pending", "claimed"):
            continue
        known = published.get(event.partition, [])
        place = bisect_left(known, event.recorded_at)
        if place == len(known) and event.state == "done":
            continue  # its checks refused it: nothing waited for it any more
        key = (event.partition, place)
        first[key] = min(first.get(key, event.recorded_at), event.recorded_at)
    found = [Happening(at, "arrived", partition=name) for (name, _), at in first.items()]
    return sorted(found, key=lambda one: one.at)


def _measured(found: Recorded) -> Iterator[Happening]:
    """Drift and quality as they were when a training was asked for because of them."""
    for decision in found.asked:
        for one in decision.details.get("triggers", ()):
            if one.get("kind") in _MEASURED and one.get("value") is not None:
                yield Happening(
                    decision.at,
                    "measured",
                    measured=Measured(
                        kind=one["kind"],
                        subject="",
                        value=float(one["value"]),
                        bound=float(one["bound"] or 0.0),
                        beyond=True,
                        because=str(one["because"]),
                        worst=str(one.get("worst", "")),
                    ),
                )


def row_counter(
    platform: Platform, pipeline: Pipeline
) -> Callable[[DatasetPart | None, DatasetPart], int]:
    """How many rows of a data version are of objects that the one before it did not have."""
    manifests, counted = Manifests(platform), dict[tuple[str, str], int]()

    def rows(known: DatasetPart | None, now: DatasetPart) -> int:
        if known is None:
            return now.rows
        key = (known.digest, now.digest)
        if key not in counted:
            if len(counted) >= _KEPT:
                counted.clear()
            try:
                old, new = (
                    manifests.raw(pipeline.name, part.partition, part.path, part.digest)
                    for part in (known, now)
                )
            except (MlControlError, ValueError):
                return now.rows  # which rows are new cannot be told
            there = {(item.key, item.version) for item in old.objects}
            added = sum(i.rows for i in new.objects if (i.key, i.version) not in there)
            counted[key] = max(1, min(added, now.rows))
        return counted[key]

    return rows
