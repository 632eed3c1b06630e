"""Tags of everything that has an ARN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_control.testing.sagemaker.refused import Refused, invalid
from ml_control.testing.sagemaker.state import Account, Record

_MOST = 50


class Tags:
    """AddTags, ListTags and DeleteTags."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def put(self, arn: str, tags: list[dict[str, str]]) -> None:
        """Tags given with a creation. Raises ``Refused`` for a key that is given twice."""
        keys = [tag["Key"] for tag in tags]
        if len(set(keys)) != len(keys):
            raise invalid(
                "Duplicate tag keys found. Please note that Tag keys are case insensitive."
            )
        self._account.tags[arn] = {tag["Key"]: tag["Value"] for tag in tags}

    def add(self, request: Mapping[str, Any]) -> Record:
        """AddTags."""
        with self._account.lock:
            held = self._held(request["ResourceArn"])
            merged = {**held, **{tag["Key"]: tag["Value"] for tag in request["Tags"]}}
            if len(merged) > _MOST:
                raise Refused("ResourceLimitExceeded", f"Cannot have more than {_MOST} tags.")
            held.update(merged)
            return {"Tags": _shown(held)}

    def listed(self, request: Mapping[str, Any]) -> Record:
        """ListTags."""
        with self._account.lock:
            return {"Tags": _shown(self._held(request["ResourceArn"]))}

    def delete(self, request: Mapping[str, Any]) -> Record:
        """DeleteTags."""
        with self._account.lock:
            held = self._held(request["ResourceArn"])
            for key in request["TagKeys"]:
                held.pop(key, None)
            return {}

    def _held(self, arn: str) -> dict[str, str]:
        kind, _, name = arn.rpartition(":")[2].partition("/")
        account = self._account
        if name not in account.records.get(kind, {}) or account.arn(kind, name) != arn:
            raise invalid(f"Could not find resource {arn}.")
        return account.tags.setdefault(arn, {})


def _shown(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
