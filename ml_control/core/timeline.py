"""What happened to a pipeline and what was live when, told from the decisions of its history."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from ml_control.core.records import Decision, Rollout

Kind = Literal[
    "training",
    "gated",
    "deployed",
    "shadow",
    "challenger",
    "step",
    "promoted",
    "rolled back",
    "kept",
    "retired",
    "approval",
    "pause",
    "halted",
    "restored",
    "other",
]
# How actions begin, the longest first where two begin alike.
_KINDS: tuple[tuple[str, Kind], ...] = (
    ("gated", "gated"),
    ("train", "training"),
    ("retrain", "training"),
    ("deploy", "deployed"),
    ("shadow", "shadow"),
    ("replay", "shadow"),
    ("start", "challenger"),
    ("challenger", "challenger"),
    ("share", "step"),
    ("step", "step"),
    ("traffic", "step"),
    ("promote", "promoted"),
    ("roll", "rolled back"),
    ("revert", "rolled back"),
    ("kept", "kept"),
    ("keep", "kept"),
    ("releas", "retired"),
    ("retire", "retired"),
    ("approv", "approval"),
    ("reject", "approval"),
    ("expire", "approval"),
    ("paus", "pause"),
    ("resum", "pause"),
    ("halt", "halted"),
    ("restore", "restored"),
)
_RUN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Moment:
    """What was live at a time.

    ``rollout`` is None before the first one. ``whole`` is False where the decision is of an
    earlier version and says nothing but champion, variants and weights. ``wrote`` is the decision
    that made the rollout so, ``crowned`` the one that made the champion champion. ``stopped`` are
    later decisions that stopped a variant without changing the routing.
    """

    at: float
    rollout: Rollout | None = None
    whole: bool = True
    wrote: Decision | None = None
    crowned: Decision | None = None
    stopped: tuple[Decision, ...] = ()


def kind_of(decision: Decision) -> Kind:
    """What sort of thing happened."""
    for beginning, kind in _KINDS:
        if decision.action.startswith(beginning):
            return kind
    return "other"


def run_of(decision: Decision) -> str | None:
    """The Dagster run that did it, if a run did."""
    named = decision.details.get("run")
    for text in (decision.actor, named if isinstance(named, str) else ""):
        if found := _RUN.search(text):
            return found[0]
    return None


def rollout_of(decision: Decision) -> tuple[Rollout, bool] | None:
    """The Rollout that a decision wrote, and whether the decision holds all of it.

    Decisions of earlier versions hold weights and variants beside the champion, their subject.
    """
    details = decision.details
    told: dict[str, Any] | None = details.get("record")
    whole = isinstance(told, dict)
    if told is None or not whole:
        if "weights" not in details or "variants" not in details:
            return None
        told = {
            "pipeline": decision.pipeline,
            "id": f"{decision.pipeline}-?",
            "champion": decision.subject or None,
            "variants": details["variants"],
            "weights": details["weights"],
            "updated_at": decision.at,
        }
    known = {name: value for name, value in told.items() if name in Rollout.model_fields}
    try:
        return Rollout.model_validate(known), whole and len(known) == len(told)
    except ValidationError:
        return None


def moment(newest_first: Iterable[Decision], at: float) -> Moment:
    """What was live at a time (UTC seconds): read no further back than needed.

    The order of the chain is the truth: where the clock was set back, the later decision counts.
    """
    stopped: list[Decision] = []
    found: tuple[Rollout, bool] | None = None
    wrote = crowned = None
    for decision in newest_first:
        if decision.at > at:
            continue
        record = rollout_of(decision)
        if found is None:
            if record is None:
                if kind_of(decision) == "halted" and "variant" in decision.details:
                    stopped.append(decision)
                continue
            found, wrote = record, decision
        if record is None:
            continue
        if found[0].champion is None or record[0].champion != found[0].champion:
            break
        crowned = decision
    if found is None:
        return Moment(at, stopped=tuple(stopped))
    return Moment(at, found[0], found[1], wrote, crowned, tuple(stopped))


def change_of(before: Rollout | None, after: Rollout) -> str:
    """What a decision changed, in words: champion and traffic."""
    said = []
    if before is None or before.champion != after.champion:
        said.append(f"champion {after.champion[:12]}" if after.champion else "no champion")
    if before is None or before.weights != after.weights:
        said.append(split(after) or "no traffic")
    return ", ".join(said)


def split(rollout: Rollout) -> str:
    """The traffic of each variant, as people read it."""
    return " ".join(f"{name} {weight:.0%}" for name, weight in sorted(rollout.weights.items()))


@dataclass(frozen=True)
class Span:
    """Since when, and until when, a model took traffic; ``until`` is None while it does."""

    since: float
    until: float | None = None


def spans(oldest_first: Iterable[Decision]) -> dict[str, list[Span]]:
    """When each model version took traffic, as the routing was recorded."""
    found: dict[str, list[Span]] = {}
    for decision in oldest_first:
        record = rollout_of(decision)
        if record is None:
            continue
        rollout = record[0]
        serving = {
            entry.model_version
            for name, entry in rollout.variants.items()
            if rollout.weights.get(name, 0.0) > 0
        }
        for version in serving:
            mine = found.setdefault(version, [])
            if not mine or mine[-1].until is not None:
                mine.append(Span(decision.at))
        for version, mine in found.items():
            if version not in serving and mine[-1].until is None:
                mine[-1] = Span(mine[-1].since, decision.at)
    return found


def about(decision: Decision, version: str) -> bool:
    """Whether a decision is about a model version: it names it, or judges it in a rollout."""
    if decision.subject == version:
        return True
    record = rollout_of(decision)
    if record is None or record[0].challenger is None:
        return False
    entry = record[0].variants.get(record[0].challenger)
    return entry is not None and entry.model_version == version
