"""The prediction log in DynamoDB: see :class:`DynamoPredictionLog`."""

from ml_control.aws.prediction_log.log import DynamoPredictionLog

__all__ = ["DynamoPredictionLog"]
