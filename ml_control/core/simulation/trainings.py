"""The retraining policy over what was published, paused and measured, in the order of time.

A training that the policy asks for takes as long as trainings really took and passes: whether its
model would have passed the gates cannot be told without training it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ml_control.core.records import Dataset, DatasetPart
from ml_control.core.retraining import Measured, Observation, begun, decide, ended, requested
from ml_control.core.training_state import TrainingState
from ml_control.spec import Retrain

_MOST = 1_000_000  # decisions: far beyond any history; a policy that wakes itself for ever ends


@dataclass(frozen=True)
class Happening:
    """One thing that happened. ``arrived``/``published`` are of a partition; ``measured`` is a
    drift or quality that was seen then; ``trained`` a training that a person asked for.
    """

    at: float
    kind: Literal["arrived", "published", "paused", "resumed", "measured", "trained"]
    part: DatasetPart | None = None
    partition: str = ""
    measured: Measured | None = None
    dataset: str = ""
    run: str = ""


@dataclass(frozen=True)
class Asked:
    """A training that the policy would have asked for."""

    at: float
    dataset: str
    because: str
    rows: int
    new_rows: int
    partitions: int

    @property
    def label(self) -> str:
        """The dataset as people see it."""
        return self.dataset[:12]


@dataclass
class _World:
    """What is true at a moment of the replay."""

    pipeline: str
    window: int
    parts: dict[str, DatasetPart]
    trained: dict[str, DatasetPart]
    published_at: dict[str, float]
    waiting: set[str]
    measured: dict[str, Measured]
    model: str | None = None
    paused: bool = False

    def dataset(self) -> Dataset:
        chosen = sorted((p for p in self.parts.values() if p.rows), key=lambda p: p.partition)
        return Dataset(pipeline=self.pipeline, parts=tuple(chosen[-self.window :]))


def replay_trainings(
    pipeline: str,
    happenings: Iterable[Happening],
    policy: Retrain,
    *,
    window: int,
    duration: Callable[[str], float],
    new_rows: Callable[[DatasetPart | None, DatasetPart], int],
    until: float,
) -> Iterator[Asked]:
    """The trainings that a policy would have asked for, up to a time.

    ``happenings`` come in the order of time. ``duration`` tells how long a training of a dataset
    takes, ``new_rows`` how many rows of a data version the one before it did not have. Asked at
    every happening, at the end of every training, and whenever the policy says that its answer may
    change by itself.
    """
    world = _World(pipeline, window, {}, {}, {}, set(), {})
    state = TrainingState(pipeline=pipeline)
    running: tuple[float, Dataset] | None = None
    wakes: list[float] = []
    coming = iter(happenings)
    upcoming = next(coming, None)
    for _ in range(_MOST):
        times = [upcoming.at] if upcoming else []
        times += wakes[:1] + ([running[0]] if running else [])
        if not times or min(times) > until:
            return
        now = min(times)
        while wakes and wakes[0] <= now:
            heapq.heappop(wakes)
        if running and running[0] <= now:
            state = ended(state, "passed", "", now, dataset=running[1].digest)
            _know(world, running[1])
            running = None
        while upcoming and upcoming.at <= now:
            state = _happen(world, state, upcoming)
            upcoming = next(coming, None)
        seen, dataset = _look(world, now, training=running is not None, new_rows=new_rows)
        decision = decide(state, seen, policy)
        state = decision.state
        if decision.train and seen.published is not None and running is None:
            state = requested(state, seen.published, decision.attempt, decision.because, now)
            state = begun(state, seen.published, "simulated", now)
            running = (now + max(duration(seen.published), 1e-3), dataset)
            yield Asked(
                now,
                seen.published,
                decision.because,
                dataset.rows,
                seen.new_rows,
                len(dataset.parts),
            )
        elif decision.not_before is not None and decision.not_before > now:
            heapq.heappush(wakes, decision.not_before)
        elif decision.scheduled is not None and decision.scheduled > now:
            heapq.heappush(wakes, decision.scheduled)


def _know(world: _World, dataset: Dataset) -> None:
    """The newest model is of this dataset: what drifted from the one before is over."""
    world.model = dataset.digest
    world.trained = {part.partition: part for part in dataset.parts}
    world.measured.clear()


def _happen(world: _World, state: TrainingState, one: Happening) -> TrainingState:
    if one.kind == "arrived":
        world.waiting.add(one.partition)
    elif one.kind == "published" and one.part is not None:
        world.parts[one.part.partition] = one.part
        world.published_at[one.part.partition] = one.at
        world.waiting.discard(one.part.partition)
    elif one.kind in ("paused", "resumed"):
        world.paused = one.kind == "paused"
    elif one.kind == "measured" and one.measured is not None:
        # Against whichever model is the newest in this replay.
        world.measured[one.measured.kind] = replace(one.measured, subject=world.model or "")
    elif one.kind == "trained":
        dataset = world.dataset()
        state = begun(state, one.dataset, one.run, one.at)
        state = ended(state, "passed", "", one.at, dataset=one.dataset)
        _know(world, dataset)
        world.model = one.dataset
    return state


def _look(
    world: _World,
    now: float,
    *,
    training: bool,
    new_rows: Callable[[DatasetPart | None, DatasetPart], int],
) -> tuple[Observation, Dataset]:
    dataset = world.dataset()
    changed = [
        part
        for part in dataset.parts
        if (known := world.trained.get(part.partition)) is None or known.digest != part.digest
    ]
    times = [world.published_at[part.partition] for part in dataset.parts]
    seen = Observation(
        published=dataset.digest if dataset.parts else None,
        ingesting=0,
        waiting=len(world.waiting),
        training=training,
        backfilling=False,
        undeployed=False,
        now=now,
        trained=world.model,
        new_rows=sum(new_rows(world.trained.get(part.partition), part) for part in changed),
        first_published=min(times, default=None),
        last_published=max(times, default=None),
        paused=world.paused,
        measured=tuple(world.measured.values()),
    )
    return seen, dataset
