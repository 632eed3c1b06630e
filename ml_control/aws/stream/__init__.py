"""The stream on Kinesis: one for all pipelines, with what was consumed kept in the registry."""

from ml_control.aws.stream.stream import KinesisStream

__all__ = ["KinesisStream"]
