"""What was measured of each rollout: sums and an offset, never the log again.

Items beside the Rollout in its table, by rollout id: ``evidence#`` holds the sums, ``shadow#``
what came of the replay. ``cursor`` is how far the log was read, by any rollout, so that the next
one does not begin at the log's beginning. ``tries`` counts attempts that came to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, ValidationError

from ml_control.core.records import Record
from ml_control.errors import Unknown
from ml_control.ports import Check, Item, Put, Table, Tables
from ml_control.registry.history import History

_TABLE: Table = "ab-test-config"


class Evidence(Record):
    """The sums of one rollout up to a log offset.

    ``experiment`` is the state of ``core.experiment`` as JSON. ``base`` are the challenger's
    counts when the step of ``step_at`` began, ``counted`` the newest. ``points`` are (time,
    samples, estimate, low, high) over time, thinned out.
    """

    pipeline: str
    rollout: str
    offset: int = 0
    unusable: int = 0  # outcomes that have no value of the metric
    experiment: dict[str, Any] = Field(default_factory=dict)
    judgement: dict[str, Any] | None = None
    step_at: float = 0.0
    base: dict[str, int] = Field(default_factory=dict)
    counted: dict[str, int] = Field(default_factory=dict)
    alarm_since: float | None = None
    clear_since: float | None = None
    points: tuple[tuple[float, int, float, float, float], ...] = ()


class Shadow(Record):
    """What came of replaying logged requests on a challenger, beside what was answered then."""

    pipeline: str
    rollout: str
    model_version: str
    beside: str  # the champion
    requests: int
    records: int
    failed: int
    differing: int  # records with another label; for numbers, beyond the float32 tolerance
    largest: float  # difference of scores
    mean: float
    because: str = ""  # of the first failure
    examples: tuple[dict[str, Any], ...] = ()
    at: float


class Tries(Record):
    """Attempts at one step that ended in an error."""

    pipeline: str
    step: str = ""  # names the step and the state that it was tried in
    count: int = 0
    at: float = 0.0
    reason: str = ""


class Experiments:
    """Changed by compare-and-set; ``Conflict`` when another process was there first."""

    def __init__(self, tables: Tables, history: History, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._history = history
        self._clock = clock

    def cursor(self, pipeline: str) -> tuple[int, int]:
        """How far the log was read, and the item version."""
        item = self._tables.get(_TABLE, pipeline, "cursor")
        return (int(item.body["offset"]), item.version) if item else (0, 0)

    def evidence(self, pipeline: str, rollout: str) -> tuple[Evidence | None, int]:
        """The sums of a rollout, and the item version that :meth:`put` expects.

        Raises ``Unknown`` for a record that cannot be read as such.
        """
        item = self._tables.get(_TABLE, pipeline, f"evidence#{rollout}")
        if item is None:
            return None, 0
        try:
            return Evidence.model_validate(item.body), item.version
        except ValidationError as error:
            raise damaged(pipeline, rollout, error) from error

    def put(self, evidence: Evidence | None, version: int, cursor: tuple[int, int], to: int,
            pipeline: str) -> None:  # fmt: skip
        """Write sums and the cursor in one go. ``cursor`` is what :meth:`cursor` gave."""
        writes: list[Put | Check] = []
        if evidence is not None:
            item = Item(pipeline, f"evidence#{evidence.rollout}", evidence.to_json())
            writes.append(Put(_TABLE, item, version))
        if to != cursor[0]:
            writes.append(Put(_TABLE, Item(pipeline, "cursor", {"offset": to}), cursor[1]))
        if writes:
            self._tables.transact(writes)

    def shadow(self, pipeline: str, rollout: str) -> Shadow | None:
        """What came of a rollout's replay, if it was made."""
        item = self._tables.get(_TABLE, pipeline, f"shadow#{rollout}")
        return Shadow.model_validate(item.body) if item else None

    def write_shadow(self, shadow: Shadow, fence: Check, *, because: str, actor: str) -> None:
        """Keep it with its decision; ``Conflict`` when the lease was lost."""

        def writes() -> list[Put | Check]:
            item = Item(shadow.pipeline, f"shadow#{shadow.rollout}", shadow.to_json())
            return [fence, Put(_TABLE, item, None)]

        self._history.append(
            shadow.pipeline,
            "shadowed",
            shadow.model_version,
            because,
            actor=actor,
            details=shadow.to_json(),
            writes=writes,
        )

    def tries(self, pipeline: str) -> Tries:
        """The attempts at the present step."""
        item = self._tables.get(_TABLE, pipeline, "tries")
        return Tries.model_validate(item.body) if item else Tries(pipeline=pipeline)

    def tried(self, pipeline: str, step: str, reason: str) -> None:
        """Count an attempt that ended in an error; another step begins at one."""
        known = self.tries(pipeline)
        count = known.count + 1 if known.step == step else 1
        fresh = Tries(
            pipeline=pipeline, step=step, count=count, at=self._clock(), reason=reason[:1000]
        )
        self._tables.transact([Put(_TABLE, Item(pipeline, "tries", fresh.to_json()), None)])


def damaged(pipeline: str, rollout: str, error: ValidationError) -> Unknown:
    """The refusal of evidence that cannot be read."""
    return Unknown(
        f"{pipeline} evidence of rollout {rollout}",
        f"its record is damaged: {error.errors()[0]['msg']}",
        f"end the rollout with 'ml-control rollback {pipeline}', or promote it by hand",
    )
