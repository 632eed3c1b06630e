"""Which of two models serves better, judged on outcomes that may be looked at at any time.

Entities (people, accounts, devices) are assigned to champion or challenger at random. Each gives
one observation, its first outcome in this rollout, which counts for the arm that it was *assigned*
to, whoever answered in the end. So however many requests an entity sends and however alike their
outcomes are, they are one observation; and an answer by the champion in place of a failed
challenger does not flatter the challenger.

:func:`update` folds observations into sufficient statistics, in the order of the log and each
once. :func:`judge` decides from them: ``promote``, ``roll_back``, ``continue`` or
``inconclusive``. Both are pure, and no answer needs the log again. Looking after every single
observation is allowed: the promises hold for all looks together.

- :mod:`~ml_control.core.experiment.difference`: challenger minus champion, as a confidence
  sequence. The probability that there is no difference and a decision by outcomes is ever made,
  for either side, is at most ``alpha``.
- :mod:`~ml_control.core.experiment.counts`: whether the split is as intended, and whether errors
  and slow answers are within their limits.

Standard library only, so that it starts fast wherever it is called.
"""

from __future__ import annotations

from ml_control.core.experiment.difference import LARGEST, update
from ml_control.core.experiment.judge import judge, reachable
from ml_control.core.experiment.records import (
    ArmCounts,
    Decision,
    ExperimentSettings,
    ExperimentState,
    GuardrailState,
    Judgement,
    Observed,
)

__all__ = [
    "LARGEST",
    "ArmCounts",
    "Decision",
    "ExperimentSettings",
    "ExperimentState",
    "GuardrailState",
    "Judgement",
    "Observed",
    "judge",
    "reachable",
    "update",
]
