"""Records that wait to be predicted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ml_control.errors import BadObject

# Of a record's data: Kinesis takes 1 MiB, with the key and whose it is.
MAX_STREAM_BYTES = (1 << 20) - 2048
MAX_STREAM_KEY = 256  # characters


@dataclass(frozen=True)
class StreamRecord:
    """One record of a stream. Records of one key keep their order."""

    pipeline: str
    key: str  # the entity
    data: bytes
    sequence: int = 0  # place in its shard; never given out twice
    at: float = 0.0  # UTC seconds when it was put


@dataclass(frozen=True)
class Parked:
    """A record that nobody could process."""

    record: StreamRecord
    reason: str
    tries: int
    at: float  # UTC seconds when it was parked


@dataclass(frozen=True)
class StreamState:
    """Where the consumer of a stream stands."""

    waiting: int = 0  # records neither settled nor parked
    failing: int = 0  # of these, those that were tried in vain
    parked: int = 0
    checkpoint: int = 0  # every record up to this sequence number is settled or parked
    oldest_at: float | None = None  # UTC seconds when the first waiting record was put


class Stream(Protocol):
    """A durable stream: at least once, in the order of each key."""

    def put(self, records: Sequence[StreamRecord]) -> list[int]:
        """Append records, on disk when it returns; gives their sequence numbers.

        Raises ``BadObject``, with nothing put, for a key that is empty or too long and for data
        that is too large, ``PlatformFailed`` when the disk refuses. Where only a part could be put
        the error says how many are in, and its detail ``put`` which: the sequence number of each
        record, None for one that is not in.
        """
        ...

    def exclusive(self, pipeline: str, patience: float = 0.0) -> AbstractContextManager[None]:
        """Hold while reading and settling: one consumer at a time. Ends with its process.

        Raises ``Conflict`` naming the holder when it is not free within ``patience`` seconds.
        """
        ...

    def read(self, pipeline: str, limit: int) -> list[StreamRecord]:
        """Up to ``limit`` records that are neither settled nor parked, in order.

        A failed one comes again when its wait is over; until then it and the later ones of its key
        are left out. The same records are given again until they are settled. Raises ``Unknown``
        when records may have expired before anyone read them; :meth:`replay` goes on behind them.
        """
        ...

    def settle(
        self,
        pipeline: str,
        done: Collection[int],
        failed: Mapping[int, str],
        poison: Mapping[int, str] | None = None,
    ) -> list[int]:
        """Report records by sequence number; gives those that were parked.

        ``done`` never come again. ``failed`` come again, each time later, until their tries are
        used up; then they are parked. ``poison``, where trying again cannot help, is parked now.
        What is not named comes again as if it had not been read. Twice is harmless.
        """
        ...

    def parked(self, pipeline: str, limit: int = 1000) -> list[Parked]:
        """The first records that nobody could process, in order, with the reason."""
        ...

    def replay(self, pipeline: str) -> int:
        """Make parked records wait again, in their places and with new tries; gives how many."""
        ...

    def state(self, pipeline: str) -> StreamState:
        """Where its consumer stands."""
        ...


def require_usable(record: StreamRecord) -> None:
    """Raise ``BadObject`` for a record that no platform's stream would take."""
    if not 1 <= len(record.key) <= MAX_STREAM_KEY:
        raise BadObject(
            "stream record",
            f"its key has {len(record.key)} characters, not 1 to {MAX_STREAM_KEY}",
            "use the entity's id as the key",
        )
    try:
        record.key.encode()
    except UnicodeEncodeError:
        raise BadObject("stream record", "its key is no text", "use the entity's id") from None
    if len(record.data) > MAX_STREAM_BYTES:
        raise BadObject(
            "stream record",
            f"has {len(record.data):,} bytes; at most {MAX_STREAM_BYTES:,} are taken",
            "put smaller records",
        )
