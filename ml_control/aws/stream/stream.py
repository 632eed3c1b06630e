"""The stream on Kinesis. What was put is there, what became of it is in the registry."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ml_control.aws.client import Clients
from ml_control.aws.stream.choosing import choose, due
from ml_control.aws.stream.position import (
    TABLE,
    Position,
    index_of,
    pk,
    position_key,
    put_position,
    read_aside,
    read_position,
)
from ml_control.aws.stream.putting import Putter
from ml_control.aws.stream.settling import Settling, accept_gap, take_again
from ml_control.aws.stream.shards import Shards
from ml_control.aws.stream.window import Window
from ml_control.errors import Conflict, InvalidSpec, Retryable
from ml_control.ports import Parked, StreamRecord, StreamState, Tables, require_usable
from ml_control.registry.leases import Leases
from ml_control.spec import NAME

_STAGE = "stream"
_TRIES_TO_WRITE = 30
_POLL_SECONDS = 0.25  # Kinesis answers five reads of a shard a second, of all readers together
_COUNT_SECONDS = 10.0
_KEPT_UP_SECONDS = 600.0


class KinesisStream:
    """Implements :class:`ml_control.ports.Stream` over one Kinesis stream for all pipelines."""

    def __init__(
        self,
        clients: Clients,
        tables: Tables,
        retry_seconds: float = 5.0,
        *,
        tries: int = 8,
        lease_seconds: float = 30.0,
        poll_seconds: float = _POLL_SECONDS,
        patience: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``tries`` of a failing record before it is parked; the wait before the second is
        ``retry_seconds``, and doubles up to a minute. ``poll_seconds``: a shard that had nothing
        new is not asked again before. ``patience``: how long a put is tried without getting on.
        """
        self._tables = tables
        self._retry_seconds = retry_seconds
        self._tries = tries
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._shards = Shards(clients, clock)
        self._putter = Putter(clients, clock, patience)
        self._leases = Leases(tables, clock, lease_seconds)
        self._lock = threading.RLock()
        self._put_at = float("-inf")  # monotonic: what we put ourselves is looked for at once

    def put(self, records: Sequence[StreamRecord]) -> list[int]:
        """See ``ports.Stream``."""
        for record in records:
            require_usable(record)
            _require_name(record.pipeline)
        given = self._putter.put(records)
        self._put_at = time.monotonic()
        return given

    @contextmanager
    def exclusive(self, pipeline: str, patience: float = 0.0) -> Iterator[None]:
        """See ``ports.Stream``. A holder that died holds it until its lease expires."""
        _require_name(pipeline)
        holder = f"pid {os.getpid()} on {socket.gethostname()}"
        until = time.monotonic() + patience
        while True:
            held = self._leases.hold(pipeline, _STAGE, holder)
            try:
                held.__enter__()
            except Conflict as error:
                if time.monotonic() >= until:
                    other = str(error.detail.get("holder", "unknown"))
                    raise Conflict(
                        f"stream of {pipeline}",
                        f"another process is at work on it: {other}",
                        "wait until it is done, or end it",
                        holder=other,
                    ) from error
                time.sleep(0.1)
                continue
            break
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    def read(self, pipeline: str, limit: int) -> list[StreamRecord]:
        """See ``ports.Stream``. Raises ``Unknown`` when records may have expired unread; whatever
        Kinesis cannot give now is left for later while something else is there.
        """
        _require_name(pipeline)
        now = self._clock()

        def is_due(tries: int, at: float) -> bool:
            return due(tries, at, now, self._retry_seconds)

        with self._lock:
            position = self._position(pipeline)
            window = Window(self._shards, self._tables, pipeline, position)
            trouble: Retryable | None = None
            while True:
                chosen = choose(window.waiting(), position.failing, is_due, limit)
                if len(chosen) >= limit or trouble is not None:
                    break
                try:
                    if not window.advance(self._is_news):
                        break
                except Retryable as error:
                    trouble = error
            if trouble is not None and not chosen:
                raise trouble
            if not chosen:
                self._keep_up(pipeline, position, window)
            return chosen

    def _is_news(self, looked: float) -> bool:
        """Whether a shard that was looked at then may have more by now."""
        return time.monotonic() - looked >= self._poll_seconds or looked <= self._put_at

    def _keep_up(self, pipeline: str, position: Position, window: Window) -> None:
        """Write down how far foreign records were passed: a pipeline at rest must not fall behind
        what Kinesis keeps, and a new process must not read all of it again.
        """
        if window.passed(position, _KEPT_UP_SECONDS):
            try:
                self._tables.transact([put_position(pipeline, position)])
            except Conflict:
                return  # a consumer wrote its own

    def settle(
        self,
        pipeline: str,
        done: Collection[int],
        failed: Mapping[int, str],
        poison: Mapping[int, str] | None = None,
    ) -> list[int]:
        """See ``ports.Stream``."""
        _require_name(pipeline)
        parked: list[int] = []
        with self._lock:
            settling = Settling(set(done), dict(failed), dict(poison or {}), self._tries)
            for _ in range(_TRIES_TO_WRITE):
                if settling.empty:
                    return parked
                position = self._position(pipeline)
                window = Window(self._shards, self._tables, pipeline, position)
                window.reach(settling.named)
                step = settling.step(pipeline, position, window, self._clock())
                try:
                    if step.writes:
                        self._tables.transact(step.writes)
                except Conflict:
                    continue  # another consumer was there first: decided anew
                window.drop(step.gone)
                settling.forget(step.named)
                parked += step.parked
        raise Retryable(
            f"stream of {pipeline}", "others settle it all the time", "end the other consumers"
        )

    def parked(self, pipeline: str, limit: int = 1000) -> list[Parked]:
        """See ``ports.Stream``."""
        _require_name(pipeline)
        found = self._tables.query_index(TABLE, index_of(pipeline, "parked"), limit=limit)
        return [read_aside(pipeline, item)[1] for item in found]

    def replay(self, pipeline: str) -> int:
        """See ``ports.Stream``. Where reading halted behind expired records it goes on as well."""
        _require_name(pipeline)
        with self._lock:
            if accept_gap(self._tables, pipeline, self._shards, self._clock()):
                self._shards.forget(pipeline)
            return take_again(self._tables, pipeline)

    def state(self, pipeline: str) -> StreamState:
        """See ``ports.Stream``. What is beyond this process's memory is counted for at most ten
        seconds: a larger backlog is larger than it says.
        """
        _require_name(pipeline)
        with self._lock:
            position = self._position(pipeline)
            window = Window(self._shards, self._tables, pipeline, position)
            while window.advance(self._is_news):
                pass
            first, count = window.first(), sum(map(len, window.waiting()))
            count += window.count_beyond(time.monotonic() + _COUNT_SECONDS)
            checkpoint = first.sequence - 1 if first else window.last_sequence()
            at = first.at if first else None
            return StreamState(count, len(position.failing), position.parked, checkpoint, at)

    def close(self) -> None:
        """Hold no record in memory any longer."""
        with self._lock:
            self._shards.forget()

    def _position(self, pipeline: str) -> Position:
        return read_position(self._tables.get(TABLE, pk(pipeline), position_key()))


def _require_name(pipeline: str) -> None:
    if not NAME.match(pipeline):
        raise InvalidSpec(
            f"stream {pipeline[:60]!r}", "is no pipeline's name", "see 'ml-control check'"
        )
