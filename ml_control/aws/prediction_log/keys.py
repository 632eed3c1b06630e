"""Under which keys the log's items are, in the table ``control-ledger``.

    log#<pipeline>              head                the one item that every commit moves
                                rollout#<id>        counts of a rollout's arms
                                minute#, hour#      counts by variant; expire
    log#<pipeline>#requests     <last>#<part>       a group of requests, as one commit logged them
    log#<pipeline>#records      <last>#<part>       their captured records
    log#<pipeline>#joined       <last>#<part>       a group of joined outcomes
    log#<pipeline>#id#<digest>  <chunk>             where a request is, and its outcomes; expires
    log#<pipeline>#seen#<...>   <digest>            an exposed entity
    log#<pipeline>#waiting      <noted>#<digest>    requests whose outcomes came first
    log#<pipeline>#aside        <noted>#<digest>    outcomes that did not fit; expire

A group is named by its last offset, so that one look finds the group that an offset is in. What is
written for every request is spread over partitions by its digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

Key = tuple[str, str]
_SHARDS = 16  # of a rollout's entities, each a partition of its own
_SHIFT = 10**17  # so that also a minute before 1970 sorts as text


def digest(text: str) -> str:
    """A short name for a text of any length; also for one that is no Unicode."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def group_key(last: int, part: int = 0) -> str:
    """The sort key of a part of the group that ends at this offset."""
    return f"{last:016d}#{part:02d}"


@dataclass(frozen=True)
class Keys:
    """The keys of one pipeline's log."""

    pipeline: str

    @property
    def subject(self) -> str:
        """The partition of the head and the counts."""
        return f"log#{self.pipeline}"

    @property
    def head(self) -> Key:
        """The head's key."""
        return self.subject, "head"

    def area(self, name: str) -> str:
        """The partition of ``requests``, ``records``, ``joined``, ``waiting`` or ``aside``."""
        return f"{self.subject}#{name}"

    def rollout(self, id: str) -> Key:
        """Counts of a rollout."""
        return self.subject, f"rollout#{id}"

    def minute(self, minute: int) -> Key:
        """Counts of a minute since 1970."""
        return self.subject, f"minute#{minute + _SHIFT:018d}"

    def hour(self, hour: int) -> Key:
        """Counts of an hour since 1970."""
        return self.subject, f"hour#{hour + _SHIFT:018d}"

    def request(self, id: str, chunk: int = 0) -> Key:
        """Where a request is noted, by the digest of its id."""
        return f"{self.subject}#id#{id}", f"{chunk:04d}"

    def shards(self, rollout: str) -> list[str]:
        """The partitions of a rollout's entities, by the digest of its id."""
        return [f"{self.subject}#seen#{rollout}#{shard:x}" for shard in range(_SHARDS)]

    def seen(self, rollout: str, entity: str) -> Key:
        """An exposed entity, by the digests of both ids."""
        return f"{self.subject}#seen#{rollout}#{entity[0]}", entity

    def dated(self, area: str, noted: float, id: str) -> Key:
        """An entry of ``waiting`` or ``aside``, by the time (UTC seconds) when it was noted."""
        return self.area(area), f"{int(noted * 1e6):017d}#{id}"
