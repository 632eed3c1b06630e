"""Leases: who may change a (pipeline, stage) now, and how a zombie is kept from committing."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_control.core.records import Lease
from ml_control.errors import Conflict, MlControlError, Retryable
from ml_control.ports import Check, Item, Put, Table, Tables

_logger = logging.getLogger("ml_control")
_TABLE: Table = "control-ledger"


class Leases:
    """Exclusion per (pipeline, stage) with heartbeat and fencing token.

    Without the heartbeat, a killed run would block its partition forever, or a slow one would
    lose it in mid-work. Without the token, a run that was paused past its expiry could still
    publish over its successor: every publish therefore carries :meth:`fence`, which fails once
    the token has moved on. Expiry is judged by the clock of whoever wants the lease; safety
    rests on the token alone.
    """

    def __init__(self, tables: Tables, clock: Callable[[], float], seconds: float) -> None:
        self._tables = tables
        self._clock = clock
        self._seconds = seconds

    def acquire(self, pipeline: str, stage: str, holder: str) -> Lease:
        """Take the lease. Raises ``Conflict`` naming the holder when someone else has it."""
        item = self._tables.get(_TABLE, _pk(pipeline), stage)
        if item is not None:
            current = Lease.model_validate(item.body)
            if self._live(current):
                raise Conflict(
                    f"{pipeline} {stage}",
                    f"is being changed by {current.holder}",
                    "wait until it ends, or end that run",
                    holder=current.holder,
                )
        lease = Lease(
            pipeline=pipeline,
            stage=stage,
            holder=holder,
            token=(int(item.body["token"]) if item else 0) + 1,
            nonce=secrets.token_hex(8),
            expires_at=self._clock() + self._seconds,
        )
        try:
            self._write(lease, expect=item.version if item else 0)
        except (Conflict, Retryable) as error:
            if self._is_ours(lease):  # the call failed although it was done
                return lease
            if isinstance(error, Retryable):
                raise
            raise Conflict(
                f"{pipeline} {stage}",
                "someone else took it at the same moment",
                "wait until it ends, then try again",
                holder="unknown",
            ) from error
        return lease

    def _is_ours(self, lease: Lease) -> bool:
        item = self._tables.get(_TABLE, _pk(lease.pipeline), lease.stage)
        return item is not None and _is(item, lease)

    def renew(self, lease: Lease) -> None:
        """Extend the lease. Raises ``Conflict`` when it was lost to someone else."""
        item = self._tables.get(_TABLE, _pk(lease.pipeline), lease.stage)
        if item is None or not _is(item, lease):
            raise Conflict(
                f"{lease.pipeline} {lease.stage}",
                f"the lease of {lease.holder} was taken over",
                "end this run; its work cannot be published",
            )
        fresh = lease.model_copy(update={"expires_at": self._clock() + self._seconds})
        self._write(fresh, expect=item.version)

    def release(self, lease: Lease) -> None:
        """Give the lease back; harmless when it was lost already."""
        item = self._tables.get(_TABLE, _pk(lease.pipeline), lease.stage)
        if item is not None and _is(item, lease):
            try:
                self._write(lease.model_copy(update={"expires_at": 0.0}), expect=item.version)
            except Conflict:
                return

    def catch_up(self, lease: Lease, seen: int) -> None:
        """Give the lease back with its counter at ``seen`` at least, so that the next is beyond it.

        For a registry restored from a backup that is older than what a token has already been
        shown to. Raises ``Conflict`` when the lease was lost: then it is we who are behind.
        """
        item = self._tables.get(_TABLE, _pk(lease.pipeline), lease.stage)
        if item is None or item.body.get("token") != lease.token:
            raise Conflict(
                f"{lease.pipeline} {lease.stage}",
                f"the lease of {lease.holder} was taken over",
                "end this run; its work cannot be published",
            )
        done = lease.model_copy(update={"token": max(seen, lease.token), "expires_at": 0.0})
        self._write(done, expect=item.version)

    def holder(self, pipeline: str, stage: str) -> Lease | None:
        """The live lease, if someone holds one."""
        item = self._tables.get(_TABLE, _pk(pipeline), stage)
        if item is None:
            return None
        lease = Lease.model_validate(item.body)
        return lease if self._live(lease) else None

    def held(self, pipeline: str) -> list[Lease]:
        """All live leases of a pipeline; what was given back is not read."""
        items = self._tables.query_index(_TABLE, _index(pipeline))
        leases = (Lease.model_validate(item.body) for item in items)
        return [lease for lease in leases if self._live(lease)]

    def _live(self, lease: Lease) -> bool:
        """Not expired; one that expires impossibly late was taken before the clock was set back."""
        now = self._clock()
        return now < lease.expires_at <= now + 2 * self._seconds

    def fence(self, lease: Lease) -> Check:
        """The condition that a publishing transaction carries: the lease is still ours.

        The token alone would not do: after a restore from a backup the numbers are given out
        again, and a zombie from before could find its own. The nonce is given out once.
        """
        equals = {"token": lease.token, "nonce": lease.nonce}
        return Check(_TABLE, _pk(lease.pipeline), lease.stage, equals)

    @contextmanager
    def hold(self, pipeline: str, stage: str, holder: str) -> Iterator[Lease]:
        """Hold the lease for a block, renewed in the background, given back at the end."""
        lease = self.acquire(pipeline, stage, holder)
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self._seconds / 3):
                try:
                    self.renew(lease)
                except Conflict:
                    return  # taken over: the fence refuses whatever we publish
                except MlControlError:
                    continue  # renewed late or taken over: the fence decides

        thread = threading.Thread(target=beat, name=f"lease {pipeline} {stage}", daemon=True)
        thread.start()
        try:
            yield lease
        finally:
            done.set()
            thread.join(timeout=self._seconds)
            try:
                self.release(lease)
            except MlControlError as error:  # what the work came to stands; the lease runs out
                _logger.warning("lease %s %s was not given back: %s", pipeline, stage, error)

    def _write(self, lease: Lease, *, expect: int) -> None:
        index = _index(lease.pipeline) if lease.expires_at else None
        item = Item(_pk(lease.pipeline), lease.stage, lease.to_json(), index)
        self._tables.transact([Put(_TABLE, item, expect)])


def _is(item: Item, lease: Lease) -> bool:
    body = item.body
    return body.get("token") == lease.token and body.get("nonce") == lease.nonce


def _pk(pipeline: str) -> str:
    return f"lease#{pipeline}"


def _index(pipeline: str) -> str:
    return f"held#{pipeline}"
