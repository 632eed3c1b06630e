"""Plans of faults for the contract suites, and callers that ask again."""

from __future__ import annotations

import os

from ml_control.testing.faults import FaultPlan, faulty
from ml_control.testing.persistent import persistent

SEEDS = ["1", "2", "random"]
RATES = {"before": 0.1, "after": 0.15, "throttle": 0.03, "delay": 0.01, "hang": 0.005}
# What nobody can recognise as done: records put twice are two records, a try reported twice is
# two tries, and a list of what was parked now is told once. How our services cope with that is
# tested with the services.
SPARED = {
    "stream.put": {"after"},
    "stream.settle": {"after"},
    "stream.replay": {"after"},
    "notifications.admit": {"after"},
    "log.tell": {"after"},
    "log.submit_outcomes": {"after"},
    "close": {"before", "after", "throttle", "hang"},
}


def plan_of(seed, rates=RATES):
    """The plan of a seed; ``random`` is another one in every run, or ``ML_CONTROL_FAULT_SEED``."""
    told = os.environ.get("ML_CONTROL_FAULT_SEED")
    number = (int(told) if told else None) if seed == "random" else int(seed)
    plan = FaultPlan(number, **rates, delay_seconds=0.001, hang_seconds=0.002, spare=SPARED)
    print(f"faults: ML_CONTROL_FAULT_SEED={plan.seed}")
    return plan


def wrapped(port, plan, name):
    """A port with faults, and a caller that asks again."""
    return persistent(faulty(port, plan, name), injected=True)
