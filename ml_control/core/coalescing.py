"""When a partition with new objects is ingested: once for a burst, and never too late."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from ml_control.core.records import Record


class Waiting(Record):
    """A partition's open events in sum: how many, since when, and the number of the newest.

    ``writers`` are those that announced events and did not say yet that they are written: while
    there is one, the sums may be behind the events themselves.
    """

    partition: str
    objects: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    newest: int = 0
    writers: dict[str, float] = Field(default_factory=dict)  # token -> when it announced

    def joined(self, at: float, seq: int) -> Waiting:
        """With one more open event."""
        return self.model_copy(
            update={
                "objects": self.objects + 1,
                "first_at": min(self.first_at, at) if self.objects else at,
                "last_at": max(self.last_at, at) if self.objects else at,
                "newest": max(self.newest, seq) if self.objects else seq,
            }
        )


@dataclass(frozen=True)
class Turn:
    """Whether a partition is due now; if not, when at the latest, and the reason shown."""

    due: bool
    until: float
    because: str


def decide(waiting: Waiting, now: float, *, quiet: float, max_wait: float) -> Turn:
    """Due when nothing arrived for ``quiet`` seconds, or ``max_wait`` after the first object.

    A partition that never falls quiet is due at the latest at ``first_at + max_wait``. An arrival
    in the future means that the clock was set back: how long it really waited cannot be told, so
    it is due at once.
    """
    count = f"{waiting.objects} {'object' if waiting.objects == 1 else 'objects'}"
    if not waiting.objects:
        return Turn(due=False, until=now, because="nothing waits")
    silent, waited = now - waiting.last_at, now - waiting.first_at
    if silent < 0:
        return Turn(due=True, until=now, because=f"{count}, and the clock was set back")
    if silent >= quiet:
        return Turn(due=True, until=now, because=f"{count}, quiet for {quiet:g} s")
    until = min(waiting.last_at + quiet, waiting.first_at + max_wait)
    if waited >= max_wait or now >= until:  # a wait too small to move a clock's float is over
        return Turn(due=True, until=now, because=f"{count}, the first {waited:g} s ago")
    said = f"waiting: {count}, quiet for {silent:.0f} s of {quiet:g} s"
    return Turn(due=False, until=until, because=said)
