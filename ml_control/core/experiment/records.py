"""What an experiment is asked, what it has seen, and what it found."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from ml_control.core.records import Record

Decision = Literal["promote", "roll_back", "continue", "inconclusive"]
GuardrailState = Literal["healthy", "breached", "unknown"]


class ExperimentSettings(Record):
    """The question, and how sure the answer must be.

    ``alpha`` bounds the probability that, without a difference, outcomes ever lead to a promotion
    *or* a rollback. ``min_samples`` are entities with an outcome on each arm; before that outcomes
    decide nothing. ``max_duration`` is in seconds. The challenger is promoted when it is surely
    better than the champion minus ``margin`` (in the metric's unit; 0: surely better), and rolled
    back when it is surely worse than that. ``error_rate`` is a share of requests, ``latency_p99``
    in seconds; None means that there is no such guardrail.
    """

    kind: Literal["proportion", "mean"]
    higher_is_better: bool = True
    alpha: float = Field(gt=0, lt=1)
    min_samples: int = Field(ge=1)
    max_duration: float = Field(gt=0, allow_inf_nan=False)
    margin: float = Field(0.0, ge=0, allow_inf_nan=False)
    error_rate: float | None = Field(None, ge=0, le=1)
    latency_p99: float | None = Field(None, gt=0)


class Observed(NamedTuple):
    """The first outcome of an entity in this rollout.

    ``offset`` is its place in the log, counted from 1. ``challenger`` says which arm the entity
    was assigned to, and ``share`` how probable that arm was for the challenger at that moment: the
    weight in force. ``value`` is 0 or 1 for a proportion, any number for a mean.
    """

    offset: int
    challenger: bool
    share: float
    value: float


class ArmCounts(Record):
    """What was counted on one arm, with or without outcomes.

    ``entities`` were exposed to this arm first; ``expected_entities`` is the sum of the arm's
    share over *all* exposed entities, each at its first exposure. ``requests`` are those assigned
    to the arm, with ``errors`` those it failed and ``slow`` those above the latency limit.
    """

    entities: int = Field(0, ge=0)
    expected_entities: float = Field(0.0, ge=0, allow_inf_nan=False)
    requests: int = Field(0, ge=0)
    errors: int = Field(0, ge=0)
    slow: int = Field(0, ge=0)


class ExperimentState(Record):
    """Sufficient statistics of the observations up to ``offset``.

    With share w of the challenger, A = 1 for a challenger's entity and 0 for a champion's, outcome
    y and the centre m before it, each entity adds to ``score`` (A - w)(y - m), to ``squares`` its
    square, to ``spread`` w(1 - w)(y - m)² and to ``information`` w(1 - w). ``marks`` holds the
    spread at which the information first reached 1, 2, 4, 8 ... ``expected_challengers`` is the
    sum of w. All floats survive JSON exactly.
    """

    started_at: float = Field(allow_inf_nan=False)
    offset: int = Field(0, ge=0)
    champion_samples: int = 0
    challenger_samples: int = 0
    champion_sum: float = 0.0
    challenger_sum: float = 0.0
    expected_challengers: float = 0.0
    centre: float = 0.0
    score: float = 0.0
    information: float = 0.0
    squares: float = 0.0
    spread: float = 0.0
    marks: tuple[float, ...] = ()


class Judgement(Record):
    """What was decided at one look, and the evidence.

    ``estimate``, ``low`` and ``high`` are of challenger minus champion, whichever is better; the
    interval holds at all looks together with probability 1 - alpha, and is None as long as
    nothing can be said. ``means`` and ``samples`` are per arm (``champion``, ``challenger``).
    ``srm`` is the probability, over all looks, of a split as uneven as this if assignment works;
    None before the first entity.
    """

    decision: Decision
    because: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    samples: dict[str, int] = Field(default_factory=dict)
    means: dict[str, float | None] = Field(default_factory=dict)
    srm: float | None = None
    guardrails: dict[str, GuardrailState] = Field(default_factory=dict)
