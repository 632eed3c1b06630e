"""Rollouts: observe, decide, act, until nothing is left to do."""

from ml_control.services.rollout.advance import Advanced, advance, advance_under, look

__all__ = ["Advanced", "advance", "advance_under", "look"]
