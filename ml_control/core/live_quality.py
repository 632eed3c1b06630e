"""Whether a model is worse live than its verdict said, from sums of outcomes alone.

For classes the value of an outcome is 1 when the predicted label was right, for numbers the
absolute error; both have their counterpart in the verdict (``accuracy``, ``mae``). It is looked at
again and again, so the bound holds for all looks together: for values with variance v and any
rho > 0,

    P(some n: S_n - n mu >= sqrt((n v + rho) * ln((n v + rho) / (rho a^2)))) <= a

with the normal mixture of Robbins (*Statistical Methods Related to the Law of the Iterated
Logarithm*, 1970), for a = 0.001 in each window of days. What the test split itself leaves open is
added. Outcomes of one entity that depend on each other make the bound too narrow, so the fall must
also be larger than the margin of the champion's gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from ml_control.core import outcomes
from ml_control.core.records import Record
from ml_control.spec import LiveMetric

LEAST_OUTCOMES = 50
WINDOW_DAYS = 7
_KEPT_DAYS = 30
_KEPT_MODELS = 6
_ALPHA = 0.001
_EXPECTED = 500  # outcomes at which the bound is narrowest
_TEST_SIGMAS = 3.0
_ACCURACY = LiveMetric()
_ERROR = LiveMetric(name="error", kind="mean", higher_is_better=False)


class OutcomeSums(Record):
    """What became of a pipeline's predictions, in sum: read from the log up to ``offset``.

    ``days``: by model version and UTC day, the number of values, their sum and sum of squares.
    ``told``: all outcomes by UTC day, also those that say nothing about a label or number.
    """

    pipeline: str
    offset: int = 0
    days: dict[str, dict[str, tuple[int, float, float]]] = Field(default_factory=dict)
    told: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Fall:
    """How much worse than its verdict a model is live, and how much chance may give."""

    outcomes: int
    live: float
    verdict: float
    fall: float  # above 0 is worse
    chance: float


def recent(sums: OutcomeSums, version: str, now: float) -> tuple[int, float]:
    """How many values a model version's outcomes of the last week have, and their sum."""
    days = _window(sums, version, now)
    return sum(day[0] for day in days), math.fsum(day[1] for day in days)


def value_of(task: str, label: str | None, score: float, outcome: Any) -> float | None:
    """An outcome's value; None when it does not say what the prediction should have been."""
    if isinstance(outcome, Mapping):
        return None
    metric = _ERROR if task == "regression" else _ACCURACY
    return outcomes.value_of(metric, label, float(score), outcome)


def added(
    sums: OutcomeSums, offset: int, outcomes: Iterable[tuple[str, float, float | None]]
) -> OutcomeSums:
    """Sums with more outcomes, as (model version, UTC seconds, value), read up to an offset."""
    told = dict(sums.told)
    days = {model: dict(by_day) for model, by_day in sums.days.items()}
    for model, at, value in outcomes:
        told[_day(at)] = told.get(_day(at), 0) + 1
        if value is None:
            continue
        by_day = days.setdefault(model, {})
        count, total, squares = by_day.get(_day(at), (0, 0.0, 0.0))
        by_day[_day(at)] = (count + 1, total + value, squares + value * value)
    for model, by_day in days.items():
        days[model] = {day: by_day[day] for day in sorted(by_day)[-_KEPT_DAYS:]}
    newest = sorted(days, key=lambda model: max(days[model], default=""))[-_KEPT_MODELS:]
    return sums.model_copy(
        update={
            "offset": max(offset, sums.offset),
            "days": {model: days[model] for model in newest},
            "told": {day: told[day] for day in sorted(told)[-_KEPT_DAYS:]},
        }
    )


def busiest(sums: OutcomeSums, now: float) -> int:
    """Outcomes on the day of the window that had most of them."""
    since = _day(now - (WINDOW_DAYS - 1) * 86400.0)
    return max((count for day, count in sums.told.items() if day >= since), default=0)


def fall(
    sums: OutcomeSums,
    model: str,
    now: float,
    *,
    verdict: float,
    test_rows: int,
    lower_is_better: bool,
) -> Fall | None:
    """The model's recent outcomes against its verdict; None when there are too few."""
    count, total = recent(sums, model, now)
    if count < LEAST_OUTCOMES:
        return None
    squares = math.fsum(day[2] for day in _window(sums, model, now))
    live = total / count
    # Half an outcome of each kind: a variance of nothing would make one error beyond all chance.
    least = 0.25 / (count + 1) if not lower_is_better else 0.0
    variance = max(squares / count - live * live, least)
    tested = variance  # of an absolute error in the test split: not recorded, so taken as here
    if not lower_is_better:
        tested = max(verdict * (1 - verdict), 0.25 / (test_rows + 1))
        variance = max(variance, tested)
    chance = _bound(count, variance) + _TEST_SIGMAS * math.sqrt(tested / max(test_rows, 1))
    worse = live - verdict if lower_is_better else verdict - live
    return Fall(outcomes=count, live=live, verdict=verdict, fall=worse, chance=chance)


def _window(sums: OutcomeSums, model: str, now: float) -> list[tuple[int, float, float]]:
    """The sums of a model's days that count now."""
    since = _day(now - (WINDOW_DAYS - 1) * 86400.0)
    return [day for name, day in sums.days.get(model, {}).items() if name >= since]


def _bound(count: int, variance: float) -> float:
    """How far the mean of so many values may be from its expectation, at any look."""
    if variance <= 0:
        return 0.0
    # The rho with about the narrowest bound at the expected number of outcomes.
    size = -2 * math.log(_ALPHA)
    rho = _EXPECTED * variance / (size + math.log(1 + size))
    spread = count * variance + rho
    return math.sqrt(spread * math.log(spread / (rho * _ALPHA**2))) / count


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
