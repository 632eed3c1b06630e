"""What the policies would have done with what happened, under other settings. Pure."""

from ml_control.core.simulation.experiments import Decided, Point, replay_experiment
from ml_control.core.simulation.trainings import Asked, Happening, replay_trainings

__all__ = ["Asked", "Decided", "Happening", "Point", "replay_experiment", "replay_trainings"]
