"""Challenger minus champion, as an interval that is right at all looks together.

**The score.** Entity i is assigned to the challenger (A = 1) with probability w, its share in
force. With a centre m known before its outcome y, the score (A - w)(y - m) has expectation
w(1 - w) times the difference of the arms at that moment, given all that came before: whatever the
shares were changed to meanwhile, and however the outcomes of both arms drift with the time of day.
(A plain difference of means would take a drift for a difference as soon as shares change.) It is
the inverse propensity score with each entity weighted by w(1 - w), the overlap weights of Li,
Morgan and Zaslavsky (*Balancing Covariates via Propensity Score Weighting*, 2018), so that it
stays bounded as a share goes to 0 or 1 and has the least variance among such weightings. An
entity whose share was 0 or 1 tells nothing of the difference and is passed over. With D the sum of
w(1 - w), the estimate is S / D for the sum of scores S; shares being constant, it estimates the
difference of means; where the difference itself changes, its average over the entities.

**The bound.** If y does not depend on A (no difference), then given the outcomes each score is a
centred step with known variance, and for every L (B. Delyon, *Exponential inequalities for sums of
weakly dependent variables*, 2009, from exp(x - x²/6) <= 1 + x + x²/3)::

    E exp(L S - L² V / 2) <= 1,   V = (Q + 2 P) / 3,
    Q = sum (A - w)² (y - m)²,    P = sum w(1 - w) (y - m)²

at all times, as a supermartingale. This is exact at every sample size, for outcomes of any
distribution, and needs no independence between entities: only the assignment need be random.
Mixed over L ~ N(0, 1/r) (H. Robbins, *Statistical Methods Related to the Law of the Iterated
Logarithm*, 1970) it gives, by Ville's inequality, with probability 1 - alpha for all t::

    |S| <= sqrt((V + r) log((V + r) / (r alpha²)))

Where there is a difference, S - D times the difference is bounded in the same way up to terms that
vanish: an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
*Time-uniform central limit theory and asymptotic confidence sequences*, 2021). For that P counts
as at least Q, since arms with unequal variances and unequal shares have the larger one. So the
promise of alpha is exact for "no difference at all", which for a proportion is "equal rates", and
asymptotic for means that are equal while their distributions are not, and for a margin. There a
mean of a very skewed outcome (a few huge values) on one arm only can mislead below thousands of
entities, as it misleads any test of means. For a proportion a difference of d implies what either
arm's variance is, and P counts as what it would be then: on a small arm few rare outcomes, or none
yet, do not pass for certainty.

**The tuning.** r is half of what P is at ``min_samples`` entities on each arm. The bound is then
within a tenth of its best for decisions at twice to twenty times ``min_samples``. P is taken when
the information first reached a power of two, about half of what ``min_samples`` give, and scaled
from there: fixed from then on, and a function of outcomes and shares alone, so that the bound above
stays exact given them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ml_control.core.experiment.records import ExperimentSettings, ExperimentState, Observed
from ml_control.errors import BadObject

#: Larger outcomes are refused: sums of their squares would leave the range of a float.
LARGEST = 1e100
_CENTRE_OVER = 1000  # about so many outcomes make the centre: it follows a drift, costing 0.05 %
_STEPS = 200  # they shrink geometrically
_MIXED = 0.5  # r as a share of P at min_samples


@dataclass(frozen=True)
class Difference:
    """Challenger minus champion: the estimate and the interval that contains it at all looks."""

    estimate: float
    low: float
    high: float


def update(state: ExperimentState, observations: Iterable[Observed]) -> ExperimentState:
    """The state after these observations of the log, in the log's order.

    Those at or below the state's offset were taken before and are passed over, so a delivery may
    be repeated; any division of the same stream into batches gives the same state, bit for bit.
    Raises ``BadObject`` naming the offset for a value or share that is not a number, not finite or
    out of range, or for an arm that had no share; the state before it stands, with none of the
    batch taken.
    """
    offset, centre, marks = state.offset, state.centre, list(state.marks)
    champions, challengers = state.champion_samples, state.challenger_samples
    champion_sum, challenger_sum = state.champion_sum, state.challenger_sum
    expected, score, information = state.expected_challengers, state.score, state.information
    squares, spread = state.squares, state.spread
    next_mark = 2.0 ** len(marks)
    for at, challenger, share, value in observations:
        if at <= offset:
            continue
        if type(value) is not float or type(share) is not float:
            value, share = _number(at, "value", value), _number(at, "share", share)  # noqa: PLW2901
        if not (-LARGEST <= value <= LARGEST and 0.0 <= share <= 1.0):
            raise _refused(at, share, value)
        toward = 1.0 - share if challenger else -share
        variance = share * (1.0 - share)
        offset = at
        if not variance:
            if toward:
                raise _without_share(at, share)
            continue
        if challenger:
            challengers += 1
            challenger_sum += value
        else:
            champions += 1
            champion_sum += value
        expected += share
        seen = champions + challengers
        if seen == 1:  # there is nothing to centre the first one by: it is the centre
            centre = value
            continue
        away = value - centre
        step = toward * away
        score += step
        squares += step * step
        spread += variance * (away * away)
        information += variance
        if information >= next_mark:
            marks.append(spread)
            next_mark *= 2.0
        centre += away / min(seen, _CENTRE_OVER)
    return ExperimentState(
        started_at=state.started_at,
        offset=offset,
        champion_samples=champions,
        challenger_samples=challengers,
        champion_sum=champion_sum,
        challenger_sum=challenger_sum,
        expected_challengers=expected,
        centre=centre,
        score=score,
        information=information,
        squares=squares,
        spread=spread,
        marks=tuple(marks),
    )


def difference(state: ExperimentState, settings: ExperimentSettings) -> Difference | None:
    """The interval at this look; None while there is too little, or no outcome differs."""
    mixed = _mixed_over(state.marks, settings.min_samples)
    if not mixed:
        return None
    limit: float = math.inf
    more: Callable[[float], float] = _nothing_more
    if settings.kind == "proportion":  # rates differ by 1 at most
        limit, more = 1.0, _more_spread(state)
    estimate = state.score / state.information

    def reach(apart: float) -> float:
        """How far the estimate may be from a difference of *apart*."""
        spread = max(state.squares, state.spread, state.spread + more(apart))
        total = (state.squares + 2.0 * spread) / 3.0 + mixed
        growth = math.log(total) - math.log(mixed) - 2.0 * math.log(settings.alpha)
        return math.sqrt(total * growth) / state.information

    def end(side: float) -> float:
        """The nearest difference on this side that its own bound leaves out."""
        at = estimate + side * reach(0.0)
        for _ in range(_STEPS):
            at = _within(limit, at)
            further = estimate + side * reach(at)
            if side * further <= side * at:
                break
            at = further
        return _within(limit, at)

    return Difference(_within(limit, estimate), end(-1.0), end(1.0))


def _within(limit: float, value: float) -> float:
    return max(-limit, min(limit, value))


def _nothing_more(apart: float) -> float:  # noqa: ARG001 - for a mean the variance is any
    return 0.0


def _more_spread(state: ExperimentState) -> Callable[[float], float]:
    """By how much rates that differ by d would have more spread than equal ones have.

    With the pooled rate p and the share w it is D ((1 - 2p)(1 - 2w) d - w(1 - w) d²).
    """
    samples = state.champion_samples + state.challenger_samples
    uneven = 1.0 - 2.0 * (state.champion_sum + state.challenger_sum) / samples
    lean = (samples - 2.0 * state.expected_challengers) / samples
    slope, bend = state.information * uneven * lean, state.information * (1.0 - lean * lean) / 4.0
    return lambda apart: apart * (slope - bend * apart)


def _mixed_over(marks: tuple[float, ...], min_samples: int) -> float:
    """The r of the bound: fixed once the information is there. 0 while it is not."""
    wanted = min_samples / 2.0  # the information of min_samples on each arm at equal shares
    # The mark before the last one that is surely there when both arms have min_samples.
    first = max(0, math.frexp(wanted)[1] - 2)
    # Where no outcome differed up to there, the first one that did sets the scale.
    for place, spread in enumerate(marks[first:], start=first):
        if spread > 0.0:
            return _MIXED * spread * wanted / 2.0**place
    return 0.0


def _number(at: int, name: str, value: Any) -> float:
    # bool is an int and is meant: an outcome that is true or false.
    if not isinstance(value, (int, float)):
        raise BadObject(
            f"observation {at}",
            f"{name} is {type(value).__name__}, not a number",
            "repair or drop the outcome",
            offset=at,
        )
    return float(value) if abs(value) <= LARGEST else math.inf  # an int may be beyond any float


def _refused(at: int, share: float, value: float) -> BadObject:
    said = f"value {value!r} is not a number within ±{LARGEST:g}"
    if not 0.0 <= share <= 1.0:
        said = f"share {share!r} is not within 0 and 1"
    return BadObject(f"observation {at}", said, "repair or drop the outcome", offset=at)


def _without_share(at: int, share: float) -> BadObject:
    arm = "the champion" if share else "the challenger"
    return BadObject(
        f"observation {at}",
        f"is of {arm}, which had no share of the traffic (challenger's share {share:g})",
        "look up how this request was routed",
        offset=at,
    )
