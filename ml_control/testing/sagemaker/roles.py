"""The role that SageMaker is to assume."""

from __future__ import annotations

from ml_control.testing.sagemaker.refused import invalid
from ml_control.testing.sagemaker.state import Account


def check_role(arn: str, account: Account) -> None:
    """Raise ``Refused`` for a role of another account."""
    if arn.split(":")[4] != account.account:
        raise invalid("Cross-account pass role is not allowed.")
