"""Sticky assignment: nanoseconds of processor time for each decision, alone and many at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from zlib import crc32

from ml_control.core.routing import all_to_challenger, to_challenger

ENTITIES, ROUNDS = 20_000, 15


def main() -> None:
    """Print both, that they decide alike, and what the hash alone costs."""
    ids = [f"customer-{i}" for i in range(ENTITIES)]
    one = best(lambda: [to_challenger("income-7", id, 0.5) for id in ids])
    many = best(lambda: all_to_challenger("income-7", ids, 0.5))
    floor = best(lambda: list(map(crc32, map(str.encode, ids))))
    alike = [to_challenger("income-7", id, 0.5) for id in ids] == all_to_challenger(
        "income-7", ids, 0.5
    )
    share = sum(all_to_challenger("income-7", ids, 0.5)) / ENTITIES
    loop = best(lambda: [None for _ in repeat(None, ENTITIES)])
    print(f"  scalar  {one:6.0f} ns a decision, goal 400 or less")
    print(f"  batched {many:6.0f} ns a decision, goal 100 or less")
    print(f"  {many / floor:6.2f}  batched to encode and crc32 alone ({floor:.0f} ns)")
    print(f"  {loop:6.0f} ns an empty loop")
    print(f"  identical: {alike}; {share:.4f} to the challenger at 0.5")


def best(call: Callable[[], object]) -> float:
    """The least processor time of several rounds, in nanoseconds for each entity."""
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        call()
        times.append(time.process_time_ns() - begin)
    return min(times) / ENTITIES


if __name__ == "__main__":
    main()
