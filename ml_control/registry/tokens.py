"""Tokens of the gateway: who may call it, as what, and until when. Only their hashes are kept."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal, cast, get_args

from ml_control.core.digests import sha256
from ml_control.errors import Conflict, InvalidSpec
from ml_control.ports import Item, Put, Table, Tables

TokenRole = Literal["caller", "reader", "manager"]
_TABLE: Table = "control-ledger"
_PK = "token"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SECRET = re.compile(r"mlc_([a-z0-9][a-z0-9._-]{0,62})_([A-Za-z0-9-]{43,64})")
_NOBODY = sha256(b"")


@dataclass(frozen=True)
class Token:
    """A token as it is kept; ``expires_at`` in UTC seconds, 0: never."""

    name: str
    role: TokenRole
    hash: str
    created_at: float
    expires_at: float = 0.0
    revoked_at: float = 0.0

    def state(self, now: float) -> Literal["valid", "expired", "revoked"]:
        """Whether it is taken."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and now >= self.expires_at else "valid"


class Tokens:
    """Tokens by name. A name is given out once while its token is valid."""

    def __init__(self, tables: Tables, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._clock = clock

    def create(self, name: str, role: str, seconds: float | None = None) -> tuple[Token, str]:
        """A new token and its text, which cannot be had again. Raises ``InvalidSpec`` for an
        unusable name or role, ``Conflict`` while the name has a valid token.
        """
        if not _NAME.fullmatch(name):
            step = "use lower-case letters, digits, '.', '_' and '-', at most 63"
            raise InvalidSpec(f"token {name[:80]!r}", "is not a usable name", step)
        if role not in get_args(TokenRole):
            step = f"use one of {', '.join(get_args(TokenRole))}"
            raise InvalidSpec(f"token {name}", f"{role[:80]!r} is no role", step)
        now = self._clock()
        item = self._tables.get(_TABLE, _PK, name)
        if item is not None and Token(**item.body).state(now) == "valid":
            step = f"revoke it first: ml-control token revoke {name}"
            raise Conflict(f"token {name}", "is there and valid", step)
        secret = secrets.token_urlsafe(32).replace("_", "-")
        token = Token(
            name=name,
            role=cast("TokenRole", role),
            hash=sha256(secret.encode()),
            created_at=now,
            expires_at=now + seconds if seconds else 0.0,
        )
        self._write(token, item.version if item else 0)
        return token, f"mlc_{name}_{secret}"

    def all(self) -> list[Token]:
        """Every token that was ever made and not made again, by name."""
        return [Token(**item.body) for item in self._tables.query(_TABLE, _PK)]

    def revoke(self, name: str) -> Token:
        """Take a token back for ever. Raises ``InvalidSpec`` when there is none."""
        item = self._tables.get(_TABLE, _PK, name)
        if item is None:
            step = "see 'ml-control token list'"
            raise InvalidSpec(f"token {name[:80]!r}", "there is no such token", step)
        token = Token(**item.body)
        if not token.revoked_at:
            token = replace(token, revoked_at=self._clock())
            self._write(token, item.version)
        return token

    def _write(self, token: Token, version: int) -> None:
        self._tables.transact([Put(_TABLE, Item(_PK, token.name, asdict(token)), version)])


def matching(known: dict[str, Token], text: str) -> Token | None:
    """The token of this text, valid or not; None when there is none or the secret is another.

    As much is compared for an unknown name as for a known one, in constant time.
    """
    found = _SECRET.fullmatch(text)
    name, secret = found.groups() if found else ("", "")
    token = known.get(name)
    wanted = token.hash if token else _NOBODY
    same = hmac.compare_digest(sha256(secret.encode()), wanted)
    return token if token is not None and same else None
