"""When to train: a pure decision from what is true now and what was asked for before.

A trigger asks for a training (new rows, the schedule, drift, fallen quality, or a training that was
asked for and gave no answer); quiet, cooldown, the daily budget and a person may make it wait. The
decision is level-based: it may be asked at any time and after any crash, and every "no" says why.
"""

from ml_control.core.retraining.decision import GRACE_SECONDS, decide
from ml_control.core.retraining.observation import Asking, Decision, Measured, Observation
from ml_control.core.retraining.schedule import next_time
from ml_control.core.retraining.transitions import begun, called, ended, redeploying, requested

__all__ = [
    "GRACE_SECONDS",
    "Asking",
    "Decision",
    "Measured",
    "Observation",
    "begun",
    "called",
    "decide",
    "ended",
    "next_time",
    "redeploying",
    "requested",
]
