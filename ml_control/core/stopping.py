"""Which round a training keeps, by the metrics that it printed: as XGBoost's own callback does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: How far a printed metric may be from its value: five digits after the point.
ROUNDING = 5e-6
_MAXIMIZED = ("auc", "aucpr", "pre", "map", "ndcg")


@dataclass(frozen=True)
class Choice:
    """The round that is kept, and those whose printed values do not tell them from it."""

    best: int
    alike: tuple[int, ...]
    ended: bool  # the training was over by this: nothing more can have been printed


def maximized(metric: str) -> bool:
    """Whether more of a metric is better, by its name without the data's."""
    return metric != "mape" and metric.startswith(_MAXIMIZED)


def chosen(
    values: Sequence[float], metric: str, rounds: int, patience: int | None, unprinted: int = 0
) -> Choice:
    """The round to keep of ``values``, one for each round that was printed.

    Without patience it is the last one. With it, it is the first that none is better than; a value
    that is no number is better than nothing. ``rounds`` are as many as there may be, ``unprinted``
    of the last ones may be missing: XGBoost before 2.0 may stop before it has printed.
    """
    last = len(values) - 1
    if patience is None:
        return Choice(last, (last,), last + 1 >= rounds)
    best = 0
    for index, value in enumerate(values):
        better = value > values[best] if maximized(metric) else value < values[best]
        best = index if better else best
    alike = tuple(i for i, value in enumerate(values) if value == values[best]) or (best,)
    return Choice(best, alike, last + 1 >= rounds or last - best >= patience - unprinted)
