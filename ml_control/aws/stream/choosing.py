"""Which of the waiting records are given now: no key overtakes itself, no shard starves another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ml_control.ports import StreamRecord

_LONGEST_WAIT = 60.0  # seconds between two tries


def due(tries: int, tried_at: float, now: float, retry_seconds: float) -> bool:
    """Whether a failed record's wait is over; a try in the future was before the clock was set
    back.
    """
    wait = min(retry_seconds * 2.0 ** min(tries - 1, 30), _LONGEST_WAIT)
    return not tried_at <= now < tried_at + wait


def choose(
    shards: Sequence[Sequence[StreamRecord]],
    failing: Mapping[int, tuple[int, float]],
    is_due: Callable[[int, float], bool],
    limit: int,
) -> list[StreamRecord]:
    """Up to ``limit`` records, in order. ``shards``: what waits of each, parents before children.

    A failed record whose wait is not over holds up the later ones of its key, also in other shards.
    Where more is due than is asked for, each shard gives an equal share first.
    """
    blocked: set[str] = set()
    free: list[list[StreamRecord]] = []
    for records in shards:
        found: list[StreamRecord] = []
        for record in records:
            if record.sequence in failing and not is_due(*failing[record.sequence]):
                blocked.add(record.key)
            if record.key not in blocked:
                found.append(record)
        free.append(found)
    if sum(map(len, free)) <= limit:
        return [record for records in free for record in records]
    return _shared(free, limit)


def _shared(free: list[list[StreamRecord]], limit: int) -> list[StreamRecord]:
    counts = [0] * len(free)
    left = limit
    while left:
        open = [place for place, records in enumerate(free) if counts[place] < len(records)]
        share = max(left // len(open), 1)
        for place in open[:left]:
            taken = min(share, len(free[place]) - counts[place])
            counts[place] += taken
            left -= taken
    chosen: list[StreamRecord] = []
    held: set[str] = set()  # keys with a record that is left out: their later ones are as well
    for records, count in zip(free, counts, strict=True):
        chosen += [record for record in records[:count] if record.key not in held]
        held |= {record.key for record in records[count:]}
    return chosen
