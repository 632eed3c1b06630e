"""The registry's tables in DynamoDB."""

from ml_control.aws.registry.tables import DynamoTables

__all__ = ["DynamoTables"]
