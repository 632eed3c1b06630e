"""One experiment over the outcomes that were really told, under other settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ml_control.core.experiment import (
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    Judgement,
    Observed,
    judge,
    update,
)

_POINTS = 400  # of the confidence sequence that are kept
_EVERY = 20_000  # beyond so many outcomes not every one is looked at


@dataclass(frozen=True)
class Point:
    """The confidence sequence at one look."""

    at: float
    outcomes: int
    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Decided:
    """What the experiment would have decided and at which outcome; ``continue``: nothing yet."""

    decision: str
    at: float | None
    outcomes: int
    offset: int
    because: str
    judgement: Judgement | None
    points: tuple[Point, ...]


def replay_experiment(
    observations: Iterable[tuple[Observed, float]],
    settings: ExperimentSettings,
    *,
    started_at: float,
    total: int,
    counts: Callable[[float], tuple[ArmCounts, ArmCounts]],
    until: float,
) -> Decided:
    """Fold outcomes (with the time each was told) in order and look after each of them.

    ``counts`` gives the champion's and the challenger's counts when a share (0 to 1) of all
    ``total`` outcomes was there. The first decision ends it, as it ends a rollout; the time limit
    may come between two outcomes, or after the last one up to ``until``.
    """
    state = ExperimentState(started_at=started_at)
    ends = started_at + settings.max_duration
    step, keep = max(1, total // _EVERY), max(1, total // _POINTS)
    points: list[Point] = []
    found: Judgement | None = None
    seen = 0
    for observed, told in observations:
        if told >= ends:  # nobody waited for this outcome
            break
        state = update(state, (observed,))
        seen += 1
        if seen % step and seen != total:
            continue
        found = judge(state, settings, *counts(seen / max(total, 1)), now=told)
        if found.low is not None and found.high is not None and found.estimate is not None:
            point = Point(told, seen, found.estimate, found.low, found.high)
            if seen % keep == 0 or found.decision != "continue":
                points.append(point)
        if found.decision != "continue":
            return Decided(
                found.decision, told, seen, state.offset, found.because, found, tuple(points)
            )
    if until >= ends:
        found = judge(state, settings, *counts(seen / max(total, 1)), now=ends)
        if found.decision != "continue":
            return Decided(
                found.decision, ends, seen, state.offset, found.because, found, tuple(points)
            )
    because = found.because if found else "no outcome was judged"
    return Decided("continue", None, seen, state.offset, because, found, tuple(points))
