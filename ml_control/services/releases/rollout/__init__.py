"""Rollouts: observe, decide, act, until nothing is left to do."""

from ml_control.services.releases.rollout.advance import (
    Advanced,
    Due,
    advance,
    advance_under,
    due,
    look,
)

__all__ = ["Advanced", "Due", "advance", "advance_under", "due", "look"]
