"""Whether the tables that the settings name are there and keyed as they must be."""

from __future__ import annotations

from collections.abc import Iterable

from ml_control.aws.client import Clients, code_of, translated
from ml_control.aws.schema import KEYS
from ml_control.errors import InvalidSpec, MlControlError, Retryable
from ml_control.ports import Table

_TOLD = ("ResourceNotFoundException", "ResourceNotFound", "ValidationException")


def require_tables(clients: Clients, tables: Iterable[Table] = tuple(KEYS)) -> None:
    """Look at each table once. Raises ``InvalidSpec`` naming the setting of one that cannot be
    used, ``Retryable`` while one is being made.
    """
    client = clients.client("dynamodb")
    for table in tables:
        name, setting = clients.settings.table(table), f"setting aws.tables.{table}"
        with translated(f"DynamoDB table {name}"):
            try:
                found = client.describe_table(TableName=name)["Table"]
            except client.exceptions.ResourceNotFoundException as error:
                raise InvalidSpec(
                    setting,
                    f"there is no DynamoDB table {name} in {clients.region}",
                    "deploy the stacks, or name the table under [aws.tables] in ml-control.toml",
                ) from error
        types = {kind["AttributeName"]: kind["AttributeType"] for kind in
                 found["AttributeDefinitions"]}  # fmt: skip
        have = [
            (key["AttributeName"], key["KeyType"], types.get(key["AttributeName"]))
            for key in found["KeySchema"]
        ]
        wanted = [(KEYS[table][0], "HASH", "S"), (KEYS[table][1], "RANGE", "S")]
        if have != wanted:
            raise InvalidSpec(
                setting,
                f"DynamoDB table {name} is keyed by {_told(have)}, not by {_told(wanted)}",
                "name a table that the stacks made, or one restored from it",
            )
        if found.get("TableStatus", "ACTIVE") not in ("ACTIVE", "UPDATING"):
            raise Retryable(
                setting,
                f"DynamoDB table {name} is {found['TableStatus']}",
                "wait until it is ACTIVE",
            )


def diagnosed(clients: Clients, error: Exception) -> MlControlError | None:
    """Why a request was refused, where that is a table's absence or its keys."""
    if code_of(error) not in _TOLD:
        return None
    try:
        require_tables(clients)
    except (InvalidSpec, Retryable) as why:
        return why
    except MlControlError:  # we may not look: what the request said is told
        return None
    return None


def _told(schema: Iterable[tuple[str, str, str | None]]) -> str:
    return ", ".join(f"{name} ({kind} {type})" for name, kind, type in schema)
