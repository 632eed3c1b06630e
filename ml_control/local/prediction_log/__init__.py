"""The prediction log in one SQLite file: see :class:`SqlitePredictionLog`."""

from ml_control.local.prediction_log.log import SqlitePredictionLog

__all__ = ["SqlitePredictionLog"]
