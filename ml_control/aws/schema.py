"""How the registry's tables are keyed in DynamoDB. The stacks and the test account make them so."""

from __future__ import annotations

from ml_control.ports import Table

# Partition key and sort key, both strings, of each table.
KEYS: dict[Table, tuple[str, str]] = {
    "model-metadata": ("ModelId", "Version"),
    "training-metrics": ("ModelId", "Trial"),
    "ab-test-config": ("TestId", "Item"),
    "control-ledger": ("Subject", "Item"),
}
# The attribute of DynamoDB's time to live, enabled on ``control-ledger``: UTC seconds.
EXPIRES = "Expires"
