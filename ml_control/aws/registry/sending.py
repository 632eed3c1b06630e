"""Transactions sent to DynamoDB: all actions or none, once, whatever becomes of the answer."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_control.aws.client import redacted, translate
from ml_control.errors import PlatformFailed, Retryable

_FAILED = "ConditionalCheckFailed"
_PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
_LOST = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_FIRST_WAIT, _LONGEST_WAIT = 0.02, 1.0


class Waits:
    """Pauses between tries, random and longer each time, until patience is used up.

    Random, because two that collided would meet again after equal waits.
    """

    def __init__(self, patience: float) -> None:
        self._until = time.monotonic() + patience
        self._longest = _FIRST_WAIT

    def wait(self, error: Retryable) -> None:
        """Wait a while. Raises ``error`` when there was enough of it."""
        pause = random.uniform(0, self._longest)  # noqa: S311 - no secret
        if time.monotonic() + pause > self._until:
            raise error
        time.sleep(pause)
        self._longest = min(2 * self._longest, _LONGEST_WAIT)


def send(
    client: Any,
    actions: Sequence[Mapping[str, Any]],
    object: str,
    waits: Waits,
    diagnose: Callable[[Exception], Exception | None],
) -> dict[int, Mapping[str, Any] | None]:
    """Do all actions, or none and give the places of those whose condition did not hold.

    With each place the item that was there instead, where the action asked for it. An answer that
    was lost is asked for again by the same token, so that what was done is not done again and not
    taken for another's; so is one that botocore's own retries lost. Contention and throttling are
    waited out. Raises our errors.
    """
    token = secrets.token_hex(16)
    while True:
        try:
            client.transact_write_items(TransactItems=list(actions), ClientRequestToken=token)
            return {}
        except client.exceptions.TransactionCanceledException as error:
            reasons = error.response.get("CancellationReasons") or []
            failed = {
                place: reason.get("Item")
                for place, reason in enumerate(reasons)
                if reason.get("Code") == _FAILED
            }
            if failed:
                return failed
            waits.wait(_cancelled(object, reasons))
            token = secrets.token_hex(16)  # surely not done
        except Exception as error:
            known = diagnose(error) or translate(error, object)
            if known is None:
                raise
            code = getattr(known, "detail", {}).get("code", "")
            if not isinstance(known, Retryable) or code in _LOST:
                raise known from error
            waits.wait(known)  # perhaps done: the same token


def _cancelled(object: str, reasons: Sequence[Mapping[str, Any]]) -> Retryable:
    """What is waited out. Raises ``PlatformFailed`` when waiting would not help."""
    told = [reason for reason in reasons if reason.get("Code") not in (None, "None")]
    said = "; ".join(
        sorted({f"{r['Code']}: {redacted(str(r.get('Message', '')))[:300]}" for r in told})
    )
    if not told or any(reason["Code"] not in _PASSING for reason in told):
        raise PlatformFailed(
            object,
            f"TransactWriteItems: {said or 'cancelled without a reason'}",
            "correct what DynamoDB refuses, then retry",
        )
    return Retryable(object, f"others write it at the same time: {said}", "try again")
