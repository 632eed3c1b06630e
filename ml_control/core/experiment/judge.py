"""The decision of an experiment, and whether it can come to one."""

from __future__ import annotations

import math

from ml_control.core.experiment.counts import (
    ALPHA_SPLIT,
    guardrails,
    outcome_probability,
    split_probability,
)
from ml_control.core.experiment.difference import Difference, difference
from ml_control.core.experiment.records import (
    ArmCounts,
    Decision,
    ExperimentSettings,
    ExperimentState,
    GuardrailState,
    Judgement,
)
from ml_control.errors import BadObject

_DAY = 86400.0


def judge(
    state: ExperimentState,
    settings: ExperimentSettings,
    champion: ArmCounts,
    challenger: ArmCounts,
    now: float,
) -> Judgement:
    """What to do at this look, and why. *now* is in seconds, as ``started_at`` is.

    In this order: a breached guardrail rolls back; a split that is not the intended one leaves
    everything inconclusive, for then the outcomes compare nothing, and a person must look; outcomes
    decide once each arm has ``min_samples`` of them; a promotion waits for all guardrails to be
    healthy; after ``max_duration`` what is undecided is inconclusive. A clock that was set back
    makes an experiment younger, at the youngest just begun. Raises ``BadObject`` for counts that
    contradict each other and a time that is none.
    """
    if not math.isfinite(now):
        raise BadObject("experiment", f"the time {now!r} is none", "pass seconds since the epoch")
    found = difference(state, settings)
    rails = guardrails(settings, challenger)
    exposed, joined = split_probability(champion, challenger), outcome_probability(state)
    decision, because = _decided(state, settings, found, rails, (exposed, joined), now)
    return Judgement(
        decision=decision,
        because=because,
        estimate=found and found.estimate,
        low=found and found.low,
        high=found and found.high,
        samples={"champion": state.champion_samples, "challenger": state.challenger_samples},
        means={
            "champion": _mean(state.champion_sum, state.champion_samples),
            "challenger": _mean(state.challenger_sum, state.challenger_samples),
        },
        srm=min((p for p in (exposed, joined) if p is not None), default=None),
        guardrails=rails,
    )


def _decided(
    state: ExperimentState,
    settings: ExperimentSettings,
    found: Difference | None,
    rails: dict[str, GuardrailState],
    splits: tuple[float | None, float | None],
    now: float,
) -> tuple[Decision, str]:
    breached = [name for name, said in rails.items() if said == "breached"]
    if breached:
        return "roll_back", f"the challenger is beyond its limit: {', '.join(breached)}"
    for p, of in zip(splits, ("entities", "entities with an outcome"), strict=True):
        # Half for each of the two, so that both together keep the promise.
        if p is not None and p <= ALPHA_SPLIT / 2:
            said = f"{of} are not split as intended (probability {p:.1g} if they were)"
            return "inconclusive", f"{said}: a person must look before any comparison counts"
    verdict, because = _by_outcomes(state, settings, found, rails)
    elapsed = max(0.0, now - state.started_at)
    if verdict == "continue" and elapsed >= settings.max_duration:
        return "inconclusive", f"{because}, and max_duration ({_days(elapsed)}) is over"
    return verdict, because


def _by_outcomes(
    state: ExperimentState,
    settings: ExperimentSettings,
    found: Difference | None,
    rails: dict[str, GuardrailState],
) -> tuple[Decision, str]:
    old, new = state.champion_samples, state.challenger_samples
    if min(old, new) < settings.min_samples:
        counts = f"champion {old}, challenger {new}"
        return "continue", f"each arm needs {settings.min_samples} outcomes: {counts}"
    if found is None:
        return "continue", f"{old} + {new} outcomes do not differ from each other enough to compare"
    # As an improvement: positive is better, whichever way the metric points.
    low, high = (found.low, found.high) if settings.higher_is_better else (-found.high, -found.low)
    sure = f"{100 * (1 - settings.alpha):g}% sure at every look, {old} + {new} entities"
    said = f"challenger minus champion is within {found.low:.4g} and {found.high:.4g} ({sure})"
    bar = -settings.margin
    margin = f" by more than the margin {settings.margin:g}" if settings.margin else ""
    if high < bar:
        return "roll_back", f"the challenger is worse{margin}: {said}"
    if low <= bar:
        return "continue", f"undecided: {said}"
    unknown = [name for name, state_of in rails.items() if state_of != "healthy"]
    better = f"the challenger is not worse{margin}" if margin else "the challenger is better"
    if unknown:
        return "continue", f"{better}, but not known to be within: {', '.join(unknown)}; {said}"
    return "promote", f"{better}: {said}"


def reachable(settings: ExperimentSettings, rate_per_second: float, share: float) -> str | None:
    """Why the experiment cannot come to a decision by outcomes; None if it can.

    *rate_per_second* is of new entities with an outcome on both arms together, as logged; *share*
    is the challenger's.
    """
    if not 0.0 < share < 1.0:
        return f"a challenger's share of {share:g} leaves nothing to compare with"
    smaller = min(share, 1.0 - share)
    if not rate_per_second > 0.0:
        return f"no entity with an outcome was logged, and each arm needs {settings.min_samples}"
    got = rate_per_second * smaller * settings.max_duration
    if got >= settings.min_samples:
        return None
    needed = settings.min_samples / (rate_per_second * smaller)
    return (
        f"min_samples of {settings.min_samples} on each arm cannot be reached: at "
        f"{rate_per_second * _DAY:.3g} entities with an outcome a day, {smaller:.3g} of them on "
        f"the smaller arm, max_duration ({_days(settings.max_duration)}) brings {int(got)}; "
        f"it would take {_days(needed)}"
    )


def _mean(total: float, samples: int) -> float | None:
    return total / samples if samples else None


def _days(seconds: float) -> str:
    if seconds >= _DAY:
        return f"{seconds / _DAY:.3g} days"
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds:.3g} s"
