"""Who may change an endpoint now, and what is known of it: one item of the registry for each.

The item keeps the highest fencing token that was deployed with, who is changing the endpoint, what
was made for it, and what last served and failed. A turn is renewed while it lasts; one with a
higher token takes it at once, one with the same waits until it is given back or not renewed.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ml_control.errors import Conflict, Retryable
from ml_control.ports import Item, Put, Table, Tables

_TABLE: Table = "control-ledger"
_INDEX = "endpoints"
_ITEM = "turn"
TURN_SECONDS = 60.0  # a holder that has not renewed for so long is gone
_POLL_SECONDS = 0.5


@dataclass
class Turn:
    """The right to change an endpoint, until it is given back or taken over."""

    name: str
    nonce: str
    token: int
    body: dict[str, Any]
    version: int


class Turns:
    """Reads and writes the items."""

    def __init__(
        self, tables: Tables, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._sleep = sleep

    def read(self, name: str) -> Mapping[str, Any]:
        """What is known of an endpoint; empty when it was never deployed."""
        item = self._tables.get(_TABLE, _pk(name), _ITEM)
        return item.body if item is not None else {}

    def names(self) -> list[str]:
        """Every endpoint that was ever deployed, sorted."""
        items = self._tables.query_index(_TABLE, _INDEX)
        return sorted(str(item.body["name"]) for item in items if item.body.get("served"))

    def is_held(self, body: Mapping[str, Any]) -> bool:
        """Whether somebody is changing the endpoint of this item."""
        return bool(body.get("holder")) and float(body["until"]) > self._clock()

    @contextmanager
    def taken(self, name: str, token: int | None, timeout: float, seen: int = 0) -> Iterator[Turn]:
        """Take the turn, and give it back at the end.

        ``token`` is the deployer's (None: whatever was deployed with last), ``seen`` the highest
        that the endpoint itself carries. Raises ``Conflict`` with ``seen`` for a lower one, and
        with ``holder`` when another does not give it back in ``timeout`` seconds.
        """
        turn = self._take(name, token, timeout, seen)
        try:
            yield turn
        finally:
            self._give_back(turn)

    def keep(self, turn: Turn) -> None:
        """Hold on to the turn while nothing is changed: renewed when a quarter of it is over."""
        if float(turn.body["until"]) - self._clock() < TURN_SECONDS * 3 / 4:
            self.renew(turn)

    def renew(self, turn: Turn, **changes: Any) -> None:
        """Hold on to the turn and note something. Raises ``Conflict`` when it was taken over."""
        body = {**turn.body, **changes, "until": self._clock() + TURN_SECONDS}
        try:
            self._write(turn.name, body, turn.version)
        except Conflict:
            item = self._tables.get(_TABLE, _pk(turn.name), _ITEM)
            if item is None or item.body.get("nonce") != turn.nonce:
                raise _lost(turn.name, turn.token, item.body if item else {}) from None
            # Our own write, whose answer was lost.
            turn.version = item.version
            if item.body != body:
                self._write(turn.name, body, turn.version)
                turn.version += 1
            turn.body = body
            return
        turn.body, turn.version = body, turn.version + 1

    def _take(self, name: str, token: int | None, timeout: float, seen: int) -> Turn:
        deadline = time.monotonic() + timeout
        nonce = secrets.token_hex(8)
        while True:
            item = self._tables.get(_TABLE, _pk(name), _ITEM)
            body = dict(item.body) if item is not None else {"name": name}
            highest = max(int(body.get("token", 0)), seen)
            own = highest if token is None else token
            if own < highest:
                raise _older(name, own, highest)
            if item is not None and body.get("nonce") == nonce:
                return Turn(name, nonce, own, body, item.version)  # the write's answer was lost
            busy = self.is_held(body) and own == int(body.get("token", 0))
            if not busy:
                body |= {
                    "token": own,
                    "nonce": nonce,
                    "holder": f"pid {os.getpid()} on {socket.gethostname()}",
                    "until": self._clock() + TURN_SECONDS,
                }
                version = item.version if item is not None else 0
                try:
                    self._write(name, body, version)
                except Conflict:
                    self._sleep(_POLL_SECONDS / 10)
                    continue
                return Turn(name, nonce, own, body, version + 1)
            if time.monotonic() >= deadline:
                raise Conflict(
                    f"endpoint {name}",
                    f"is being changed by {body['holder']}",
                    "wait until it ends, or end that run",
                    holder=body["holder"],
                )
            self._sleep(min(_POLL_SECONDS, max(0.01, deadline - time.monotonic())))

    def _give_back(self, turn: Turn) -> None:
        # It may have been taken over; if it cannot be written, it runs out.
        with suppress(Conflict, Retryable):
            self._write(turn.name, {**turn.body, "holder": "", "until": 0.0}, turn.version)

    def _write(self, name: str, body: Mapping[str, Any], version: int) -> None:
        item = Item(pk=_pk(name), sk=_ITEM, body=body, index=_INDEX)
        self._tables.transact([Put(_TABLE, item, expect=version)])


def _lost(name: str, token: int, body: Mapping[str, Any]) -> Conflict:
    highest = int(body.get("token", 0))
    if highest > token:
        return _older(name, token, highest)
    return Conflict(
        f"endpoint {name}",
        "another deployer took it over meanwhile",
        "see what serves with 'ml-control status', then do it again",
        holder=str(body.get("holder", "")),
    )


def _older(name: str, token: int, highest: int) -> Conflict:
    return Conflict(
        f"endpoint {name}",
        f"a deployer with token {highest} came after the one with token {token}",
        "end this run; its lease was taken over",
        seen=highest,
    )


def _pk(name: str) -> str:
    return f"endpoint#{name}"
