"""Whether counts are as they should be, at all looks together: the split, errors, slow answers.

If each of n trials has probability at most p of counting, given what came before, then for every
tilt L >= 0 the product ``exp(L count) / (1 - p + p exp(L))^n`` has expectation at most 1 at all
times, and so has an average over several tilts; for exactly p also with L < 0. It is the likelihood
ratio of the odds times exp(L) against the odds as they should be. By Ville's inequality it ever
reaches 1/a with probability at most a (M. Lindon and A. Malek, *Anytime-Valid Inference for
Multinomial Count Data*, 2022). Where p varies from trial to trial, their mean stands for them:
log(1 - p + p exp(L)) is concave in p, so the value can only become smaller by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ml_control.core.experiment.records import (
    ArmCounts,
    ExperimentSettings,
    ExperimentState,
    GuardrailState,
)
from ml_control.errors import BadObject

#: How often a working split is called uneven, over all looks.
ALPHA_SPLIT = 0.001
#: How often a challenger exactly at a guardrail's limit is rolled back for it, over all looks.
ALPHA_GUARDRAIL = 0.01
#: More requests than this share being slow means that the 99th percentile is above its limit.
SLOW_SHARE = 0.01

_SIZES = tuple(0.01 * 2.0**k for k in range(10))  # odds off by 1 % to a factor of 170
_BOTH_WAYS = tuple(-size for size in _SIZES) + _SIZES
# Up to five times the odds and not beyond: the retries of one bad request are not yet a breach.
_ABOVE = (0.1, 0.2, 0.4, 0.8, 1.6)


def log_evidence(count: int, trials: int, rate: float, tilts: Sequence[float]) -> float:
    """The logarithm of the average above: 0 says nothing, log(1/a) refutes *rate* at level a."""
    if not trials:
        return 0.0
    if rate <= 0.0 or rate >= 1.0:  # certain: one exception refutes it
        return math.inf if count != round(rate) * trials else 0.0
    logs = [L * count - trials * math.log1p(rate * math.expm1(L)) for L in tilts]
    most = max(logs)
    return most + math.log(sum(math.exp(one - most) for one in logs) / len(logs))


def split_probability(champion: ArmCounts, challenger: ArmCounts) -> float | None:
    """How probable a split as uneven as this is over all looks; None before the first entity.

    Raises ``BadObject`` if the two expected numbers do not add up to the entities.
    """
    entities = champion.entities + challenger.entities
    expected = champion.expected_entities + challenger.expected_entities
    if abs(expected - entities) > 1e-6 * entities:
        raise BadObject(
            "entities",
            f"{entities} were exposed, and the shares of both arms add up to {expected:g}",
            "count each entity once, at its first exposure, with its share for both arms",
        )
    if not entities:
        return None
    rate = challenger.expected_entities / expected
    return _probability(log_evidence(challenger.entities, entities, rate, _BOTH_WAYS))


def outcome_probability(state: ExperimentState) -> float | None:
    """The same for the entities that have an outcome.

    An even split of entities with an uneven one of outcomes means that outcomes are lost, or late,
    on one arm: those that arrive are then no fair sample, and their difference may be chance.
    """
    samples = state.champion_samples + state.challenger_samples
    if not samples:
        return None
    rate = state.expected_challengers / samples
    return _probability(log_evidence(state.challenger_samples, samples, rate, _BOTH_WAYS))


def guardrails(settings: ExperimentSettings, challenger: ArmCounts) -> dict[str, GuardrailState]:
    """Each guardrail that is set, of the challenger.

    They are per request, not per entity: a limit must hold for each request given those before.
    Where one entity's requests fail together the count grows in jumps, and a breach is called
    earlier than its level says, never later. That is the side to err on: it costs a rollout, not
    an outage. *Unknown* without any request, and while the observed share is above its limit
    without being proven so.
    """
    found: dict[str, GuardrailState] = {}
    if settings.error_rate is not None:
        found["error_rate"] = _state(challenger.errors, challenger.requests, settings.error_rate)
    if settings.latency_p99 is not None:
        found["latency_p99"] = _state(challenger.slow, challenger.requests, SLOW_SHARE)
    return found


def _state(count: int, requests: int, limit: float) -> GuardrailState:
    if count > requests:
        raise BadObject(
            "guardrail", f"{count} of {requests} requests are counted", "count each request once"
        )
    if limit >= 1.0:  # no share is above it
        return "healthy" if requests else "unknown"
    if count > limit * requests and log_evidence(count, requests, limit, _ABOVE) >= -math.log(
        ALPHA_GUARDRAIL
    ):
        return "breached"
    return "healthy" if requests and count <= limit * requests else "unknown"


def _probability(log_value: float) -> float:
    return math.exp(-max(0.0, log_value))
