"""The rollout policy: pure decisions from what is seen, and what each makes of the record."""

from ml_control.core.rollout.change import (
    apply,
    champion_variant,
    idle_variant,
    target_of,
    variant_of,
)
from ml_control.core.rollout.commands import is_last, obey
from ml_control.core.rollout.policy import HEALTHY_REQUESTS, decide, unfit
from ml_control.core.rollout.seen import (
    EFFECTS,
    Action,
    Alarmed,
    Candidate,
    Command,
    Decision,
    Health,
    Judged,
    Replayed,
    Seen,
    Serving,
)

__all__ = [
    "EFFECTS",
    "HEALTHY_REQUESTS",
    "Action",
    "Alarmed",
    "Candidate",
    "Command",
    "Decision",
    "Health",
    "Judged",
    "Replayed",
    "Seen",
    "Serving",
    "apply",
    "champion_variant",
    "decide",
    "idle_variant",
    "is_last",
    "obey",
    "target_of",
    "unfit",
    "variant_of",
]
