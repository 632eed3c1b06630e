"""Who may do what, and how often: tokens, roles, rate limits."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping

from ml_control.errors import InvalidSpec, Retryable
from ml_control.registry.tokens import Token, matching
from ml_control.serving.handlers.messages import Caller, Refusal
from ml_control.serving.handlers.routes import ROLES, Access

BURST_SECONDS = 10.0
_MOST = 10_000  # callers whose rate is remembered


def identify(
    headers: Mapping[str, str], address: str, known: dict[str, Token], now: float
) -> Caller:
    """Who asks. Raises ``Refusal`` (401) for a token that is not valid; none at all is nobody."""
    header = headers.get("authorization")
    if header is None:
        return Caller(address=address)
    kind, _, text = header.partition(" ")
    token = matching(known, text.strip()) if kind.lower() == "bearer" else None
    if token is None:
        raise _unauthorised("is not one that was given out", "check the Authorization header")
    if (state := token.state(now)) != "valid":
        step = f"make a new one: ml-control token create {token.name} --role {token.role}"
        raise _unauthorised(f"is {state}", step)
    return Caller(token.name, token.role, address)


def require(access: Access, caller: Caller, *, keys: bool, managers: bool) -> None:
    """Raise ``Refusal`` 401 without a token where one is needed, 403 for a role that may not.

    ``keys``: reading and inference need one too. ``managers``: a manager's token was made.
    """
    if access == "open" or (access != "manage" and not keys) or access in ROLES[caller.role]:
        return
    if caller.role:
        roles = ", ".join(role for role, may in ROLES.items() if access in may)
        step = f"use a token with the role {roles}"
        error = InvalidSpec(f"token {caller.name}", f"is a {caller.role}'s, which may not", step)
        raise Refusal(403, error)
    needed = {"manage": "manager", "read": "reader", "infer": "caller"}[access]
    step = "send it as 'Authorization: Bearer TOKEN'"
    if access == "manage" and not managers:
        step = "none was made yet: ml-control token create NAME --role manager"
    elif access != "manage":
        step += f"; make one with 'ml-control token create NAME --role {needed}'"
    raise _unauthorised(f"of a {needed} is needed here", step)


def _unauthorised(reason: str, step: str) -> Refusal:
    return Refusal(401, InvalidSpec("token", reason, step), www_authenticate="Bearer")


class Rates:
    """A token bucket for each caller: ``rate`` a second, in bursts of ten seconds; 0: any."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._size = max(1.0, rate * BURST_SECONDS)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: Caller) -> None:
        """Count one request. Raises ``Refusal`` (429) saying when to come again."""
        if not self._rate:
            return
        key = f"token {caller.name}" if caller.name else f"address {caller.address}"
        now = time.monotonic()
        left, at = self._buckets.pop(key, (self._size, now))
        left = min(self._size, left + (now - at) * self._rate)
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > _MOST:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = (1.0 - left) / self._rate
            error = Retryable(key, f"asks more than {self._rate:g} times a second", "ask slower")
            raise Refusal(429, error, retry_after=str(max(1, round(wait + 0.5))))
