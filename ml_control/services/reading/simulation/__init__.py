"""simulate: what the policies would have done with the recorded history. Reads, never writes."""

from ml_control.services.reading.simulation.answer import simulate
from ml_control.services.reading.simulation.changes import changed

__all__ = ["changed", "simulate"]
