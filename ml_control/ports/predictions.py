"""What is kept of predictions and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Prediction:
    """One answered request. ``assigned`` is where its entity belongs, ``served`` who answered.

    They differ when the assigned variant failed and the champion answered in its place. Failed
    requests are logged as well: then ``served`` is empty and ``failure`` says why.
    """

    pipeline: str
    request_id: str
    entity_id: str
    rollout_id: str
    assigned: str  # variant: "a" | "b"
    challenger: bool  # whether the assigned variant was the rollout's challenger
    share: float  # the challenger's share when it was assigned; 0 without a challenger
    served: str
    model_version: str  # of the variant that answered
    at: float  # UTC seconds
    latency: float  # seconds, of the whole answer
    rows: int  # records in the request
    failed: bool = False  # the assigned variant did not answer
    failure: str = ""
    records: bytes | None = None  # JSON list of the input records; None when not captured
    answers: bytes = b"[]"  # JSON list of {"label", "score"}, one for each record


@dataclass(frozen=True)
class Outcome:
    """What really happened to one record of a request, told later."""

    index: int  # of the record within the request
    value: Any  # the true label or number, or {"<metric>": number}
    at: float  # UTC seconds when it was told


@dataclass(frozen=True)
class Joined:
    """An outcome beside its prediction. ``offset`` grows in the order of joining, without gaps
    that fill later; ``first`` marks the first of its entity in the rollout, of requests that were
    assigned while the challenger had a share (outside of that nothing is compared).
    """

    offset: int
    pipeline: str
    request_id: str
    index: int
    entity_id: str
    rollout_id: str
    challenger: bool
    share: float
    served: str
    model_version: str
    label: str | None
    score: float  # NaN when the answer had none
    outcome: Any
    predicted_at: float
    told_at: float
    first: bool


@dataclass(frozen=True)
class Traffic:
    """Counts of one arm of a rollout, or of one variant; kept as they happen, never rescanned.

    Entities are counted while the challenger has a share: who came before is new again then.
    """

    entities: int = 0  # first exposures of entities
    expected: float = 0.0  # sum over all exposed entities, of both arms, of this arm's share
    requests: int = 0
    errors: int = 0  # requests that the assigned variant failed
    latencies: tuple[int, ...] = ()  # requests by latency, see ``LATENCY_BOUNDS``


# Upper bounds in seconds of the latency counts; a last count has what is slower.
LATENCY_BOUNDS: tuple[float, ...] = tuple(
    round(base * 10.0**power, 9)
    for power in range(-4, 2)
    for base in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
)


@dataclass(frozen=True)
class Logged:
    """A request with its place in the log. Places grow in the order of logging."""

    offset: int
    prediction: Prediction


@dataclass(frozen=True)
class LogState:
    """Where a pipeline's log stands."""

    newest: int = 0  # no request has a later offset
    joined: int = 0  # no joined outcome has a later offset
    waiting: int = 0  # outcomes whose request has not come yet
    expired: int = 0  # outcomes that were given up, for their request never came
    unjoinable: int = 0  # outcomes that did not fit their request when it came, kept aside


class PredictionLog(Protocol):
    """Every prediction and outcome: durable, joined by request id, counted as it is written."""

    def append(self, predictions: Sequence[Prediction], *, durable: bool = True) -> list[bool]:
        """Log answered requests; False where the request id is known already (nothing changes).

        ``durable``: on disk when it returns, writers together in one commit; else within a second,
        and what another process logs meanwhile under the same id is seen only then. Raises
        ``Retryable`` when it cannot be written, ``Unknown`` when the log is damaged; a buffered
        call also what kept earlier buffered requests from being written, once.
        """
        ...

    def submit(self, predictions: Sequence[Prediction]) -> Future[list[bool]]:
        """A durable :meth:`append` that is awaited by the caller; also its errors come there."""
        ...

    def submit_outcomes(
        self, pipeline: str, request_id: str, outcomes: Sequence[Outcome]
    ) -> Future[list[str]]:
        """A :meth:`tell` that is awaited by the caller; also its errors come there."""
        ...

    def after(self, pipeline: str, offset: int, limit: int) -> list[Logged]:
        """Requests after an offset, in order."""
        ...

    def recent(self, pipeline: str, since: float) -> dict[str, Traffic]:
        """Counts by assigned variant since a time (UTC seconds), to the minute; no entities."""
        ...

    def state(self, pipeline: str) -> LogState:
        """Where the log of a pipeline stands."""
        ...

    def prune(self, pipeline: str, flushed: int, flushed_joined: int, keep: int) -> None:
        """Drop what is no longer needed of what the lake has: requests up to ``flushed``, outcomes
        up to ``flushed_joined``.

        Captured records go but for the newest ``keep``; everything goes that is older than the
        days that outcomes are joined. Outcomes that waited so long are given up and counted.
        """
        ...

    def close(self) -> None:
        """Write what is buffered; a later call opens it again."""
        ...

    def find(self, pipeline: str, request_id: str) -> Prediction | None:
        """A logged request, as long as outcomes for it are taken."""
        ...

    def tell(self, pipeline: str, request_id: str, outcomes: Sequence[Outcome]) -> list[str]:
        """Note outcomes: ``joined``, ``waiting`` (its prediction is not there yet) or ``known``.

        The same outcome again changes nothing; another value for the same record raises
        ``Conflict``, an index beyond the request's records ``BadObject``; all or none is noted.
        """
        ...

    def joined(self, pipeline: str, after: int, limit: int) -> list[Joined]:
        """Outcomes joined after an offset, in order."""
        ...

    def traffic(self, pipeline: str, rollout_id: str) -> dict[str, Traffic]:
        """Counts by arm: ``champion`` and ``challenger``."""
        ...

    def newest(self, pipeline: str, limit: int) -> list[Prediction]:
        """The newest answered requests with captured records, newest first."""
        ...

    def count(self, pipeline: str, since: float) -> int:
        """Requests logged since a time (UTC seconds), to the minute, within the days kept."""
        ...
