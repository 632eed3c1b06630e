"""Samples until a decision beside a test with a fixed horizon, and what a look costs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from statistics import NormalDist, fmean, quantiles

from ml_control.core.experiment import (
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    Observed,
    judge,
    update,
)

RUNS, MIN_SAMPLES, CHAMPION, ALPHA, POWER = 200, 100, 0.7, 0.05, 0.8
SETTINGS = ExperimentSettings(
    kind="proportion",
    alpha=ALPHA,
    min_samples=MIN_SAMPLES,
    max_duration=1e9,
    error_rate=0.01,
    latency_p99=0.2,
)
HEALTHY = ArmCounts(entities=500, expected_entities=500, requests=900, errors=2, slow=1)
#: Entities of the fixed test on both arms together: four times min_samples on each.
FIXED = 8 * MIN_SAMPLES
_Z = NormalDist().inv_cdf


def main() -> None:
    """Print mean samples as a share of the fixed horizon, and the costs of update and judge."""
    effect = _design_effect()
    print(f"fixed horizon: {FIXED} entities, {POWER:.0%} power for {CHAMPION} + {effect:.3f}")
    for times, goal in ((1, 1.4), (2, 0.6)):
        _samples(times * effect, times, goal)
    _costs()


def _design_effect() -> float:
    """What the two-sided z-test at ALPHA detects with POWER at its horizon."""
    needed, effect = (_Z(1 - ALPHA / 2) + _Z(POWER)) ** 2, 0.0
    for _ in range(50):  # the challenger's variance depends on the effect
        spread = _variance(CHAMPION) + _variance(CHAMPION + effect)
        effect = math.sqrt(needed * spread / (FIXED / 2))
    return effect


def _variance(rate: float) -> float:
    return rate * (1.0 - rate)


def _samples(effect: float, times: int, goal: float) -> None:
    """Decisions at every look, by the code itself; the fixed test looks once at the same."""
    ends, right, found_by_fixed = [], 0, 0
    for seed in range(RUNS):
        rng = random.Random(seed)
        state, decision = ExperimentState(started_at=0.0), "continue"
        counts = [[0, 0], [0, 0]]
        at = end = 0
        while at < FIXED or (decision == "continue" and at < 10 * FIXED):
            at += 1
            new = rng.random() < 0.5
            won = rng.random() < CHAMPION + effect * new
            if at <= FIXED:
                counts[new][won] += 1
            if decision == "continue":
                state = update(state, (Observed(at, new, 0.5, float(won)),))
                if min(state.champion_samples, state.challenger_samples) >= MIN_SAMPLES:
                    decision = judge(state, SETTINGS, HEALTHY, HEALTHY, 1.0).decision
                end = at
        ends.append(end)
        right += decision == "promote"
        found_by_fixed += _z_test(counts)
    mean = fmean(ends) / FIXED
    print(
        f"{times} x the design effect: {mean:.2f} of the fixed horizon (goal: at most {goal}), "
        f"{right / RUNS:.1%} promoted; the fixed test finds {found_by_fixed / RUNS:.1%}"
    )
    if times == 1:
        # Given up where it has found as much as the fixed test: the same power, fewer samples.
        limit = quantiles(ends, n=100)[round(100 * POWER) - 1]
        capped = fmean(min(end, limit) for end in ends) / FIXED
        print(f"  given up at the same power ({limit / FIXED:.2f} of the horizon): {capped:.2f}")


def _z_test(counts: list[list[int]]) -> bool:
    sizes = [sum(arm) for arm in counts]
    rates = [arm[1] / size for arm, size in zip(counts, sizes, strict=True)]
    error = math.sqrt(sum(_variance(p) / n for p, n in zip(rates, sizes, strict=True)))
    return (rates[1] - rates[0]) / error > _Z(1 - ALPHA / 2)


def _costs() -> None:
    rng = random.Random(1)
    stream = [
        Observed(at, rng.random() < 0.5, 0.5, float(rng.random() < CHAMPION))
        for at in range(1, 200_001)
    ]
    empty = ExperimentState(started_at=0.0)
    few, many = update(empty, stream[:10_000]), update(empty, stream)
    each, bare = _best(lambda: update(empty, stream)), _best(lambda: _sums(stream))
    each, bare = each / len(stream), bare / len(stream)
    print(f"update: {each:.2f} us an observation, {each / bare:.1f} times bare sums of each arm")
    one = _best(lambda: update(few, stream[10_000:10_001]), 2000)
    print(f"update by a single observation: {one:.1f} us")
    early, late = (
        _best(lambda s=s: judge(s, SETTINGS, HEALTHY, HEALTHY, 1.0), 2000) for s in (few, many)
    )
    print(
        f"judge: {early:.1f} us after 10,000 observations, {late / early:.2f} times after 200,000"
    )


def _sums(stream: list[Observed]) -> list[list[float]]:
    """The least that any comparison of means keeps: number, sum and sum of squares of each arm."""
    arms = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    for _, new, _, value in stream:
        arm = arms[new]
        arm[0] += 1.0
        arm[1] += value
        arm[2] += value * value
    return arms


def _best(call: Callable[[], object], times: int = 1) -> float:
    """Microseconds of processor time of one call: the best of five rounds."""
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(times):
            call()
        rounds.append((time.process_time() - start) / times)
    return 1e6 * min(rounds)


if __name__ == "__main__":
    main()
