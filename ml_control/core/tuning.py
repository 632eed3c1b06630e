"""The search for hyperparameters: what a trial is, and which one won."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ml_control.core.digests import digest_of
from ml_control.core.records import Record

Number = int | float

LOGARITHMIC = frozenset({"eta", "alpha", "lambda", "gamma", "min_child_weight"})
"""Hyperparameters whose effect goes with their ratio; searched so where the range is above 0."""


class Trial(Record):
    """One setting that was tried, numbered from 1: a training job, and how it ended.

    ``value`` is the watched validation metric of the round that was kept (None unless complete);
    all metrics that are watched are better when lower. ``curve`` has (round, value) pairs.
    """

    study: str
    number: int
    job: str
    params: dict[str, Number]
    state: Literal["complete", "pruned", "failed"]
    watched: str = ""
    value: float | None = None
    rounds_kept: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    reason: str = ""

    @property
    def key(self) -> str:
        """Where the registry keeps it: beside the other trials of its study, in order."""
        return f"{self.study}#{self.number:04d}"


def study_of(job: str, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Names a search by the job that the pipeline file itself describes and what is varied.

    The number of trials is not part of it: asking for more goes on where the search ended.
    """
    return f"study-{digest_of([job, {name: list(edges) for name, edges in ranges.items()}])[:16]}"


def seed_of(study: str, number: int) -> int:
    """The sampler's seed for one trial: the same data gives the same trials."""
    return int(digest_of([study, number])[:8], 16)


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The complete trial with the lowest value; the first of equal ones."""
    done = [(trial.value, trial.number, trial) for trial in trials if trial.value is not None]
    return min(done, key=lambda item: item[:2])[2] if done else None


def usual(
    ranges: Mapping[str, tuple[float, float]], configured: Mapping[str, object]
) -> dict[str, Number] | None:
    """The pipeline file's own values of what is searched, if each is there and within its range.

    They are tried first, so that a search is never worse than no search on validation.
    """
    found: dict[str, Number] = {}
    for name, (low, high) in ranges.items():
        value = configured.get(name)
        if not isinstance(value, int | float) or not low <= value <= high:
            return None
        found[name] = value
    return found


def class_weights(counts: Sequence[int]) -> list[float]:
    """A weight for each class, so that all weigh the same and a row weighs 1 on average."""
    total = sum(counts)
    return [total / (len(counts) * count) for count in counts]
