"""What ml-control asks of a platform. Each port has an adapter under ``local`` and one under
``aws`` with the same file name, and one contract suite that both pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Table = Literal["model-metadata", "training-metrics", "ab-test-config", "control-ledger"]
TABLES: tuple[Table, ...] = (
    "model-metadata",
    "training-metrics",
    "ab-test-config",
    "control-ledger",
)


@dataclass(frozen=True)
class Item:
    """One item of a table. ``version`` grows by one with every write of the item."""

    pk: str
    sk: str
    body: Mapping[str, Any]
    index: str | None = None  # items with the same index value can be listed, sorted by sk
    version: int = 0


@dataclass(frozen=True)
class Put:
    """Write an item. ``expect``: the version it must have now (0 = absent, None = any)."""

    table: Table
    item: Item
    expect: int | None


@dataclass(frozen=True)
class Check:
    """Require that an item exists and its body has these top-level values; writes nothing."""

    table: Table
    pk: str
    sk: str
    equals: Mapping[str, Any]


class Tables(Protocol):
    """The registry's storage: keyed items, conditional writes, one secondary index a table."""

    def get(self, table: Table, pk: str, sk: str) -> Item | None:
        """The item as last committed, or None."""
        ...

    def query(
        self,
        table: Table,
        pk: str,
        *,
        prefix: str = "",
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Item]:
        """Items of one partition key, sorted by sort key, whose sort key begins with prefix."""
        ...

    def query_index(
        self, table: Table, index: str, *, prefix: str = "", limit: int | None = None
    ) -> Iterator[Item]:
        """Items with this index value, sorted by sort key, whose sort key begins with prefix."""
        ...

    def count_index(self, table: Table, index: str) -> int:
        """How many items have this index value."""
        ...

    def transact(self, writes: Sequence[Put | Check]) -> None:
        """All writes or none. Raises ``Conflict`` naming the first condition that did not hold.

        At most 100 writes, the smaller of the platforms' limits.
        """
        ...

    def write_each(self, writes: Sequence[Put]) -> list[bool]:
        """Each write on its own, any number of them; False where its condition did not hold."""
        ...


@dataclass(frozen=True)
class Notice:
    """A source's word that an object version exists. ``handle`` is what acknowledging needs.

    ``fresh``: certainly a new put, so that putting an older content again makes it current;
    unless the ledger has this version from the same ``put``, for then it is word of that one.
    """

    bucket: str
    key: str
    version: str
    size: int
    path: str  # lake key of the bytes
    at: float
    handle: str
    refused: str = ""  # why it cannot be admitted at all, if so
    fresh: bool = False
    put: str = ""  # names the act of putting it, where the source can tell one from the next


@dataclass(frozen=True)
class Stored:
    """An object of the lake's raw area, as a listing shows it: nothing was read."""

    path: str
    at: float  # when it came to be there
    key: str  # its key as far as the path tells
    beside: str = ""  # other versions of it have paths that begin so and are as long


@dataclass(frozen=True)
class Stray:
    """Objects that wait where no pipeline looks."""

    name: str  # of the pipeline that they would belong to
    place: str
    objects: int


class Notifications(Protocol):
    """Where word of new objects comes from."""

    def exclusive(self, pipeline: str) -> AbstractContextManager[None]:
        """Hold while receiving, recording and acknowledging. Raises ``Conflict`` when held."""
        ...

    def receive(self, pipeline: str, settle: float, limit: int) -> list[Notice]:
        """Objects not yet acknowledged, whole and pinned in the lake, oldest first.

        A notice may come again until it is acknowledged, and may be a duplicate.
        """
        ...

    def acknowledge(self, notices: Iterable[Notice]) -> None:
        """Drop notices that the ledger now holds. Doing it twice is harmless."""
        ...

    def admit(self, pipeline: str, key: str, file: Path) -> Notice:
        """Copy a file into the lake whole, at once, and give its notice (already settled)."""
        ...

    def stored(self, pipeline: str, after: str, limit: int) -> list[Stored]:
        """Up to ``limit`` objects of the raw area with paths after this one, sorted by path.

        Neither manifests nor drafts are among them. Fewer than ``limit``: there are no more.
        """
        ...

    def identify(self, stored: Stored, key: str) -> Notice | None:
        """Read an object of the raw area and give a notice of it under this key; None if gone."""
        ...

    def arrived(self, path: str) -> float | None:
        """When an object of the raw area came to be there; None if it is not."""
        ...

    def tidy(self, pipeline: str) -> int:
        """Remove what crashes left at the source and nobody will ask for; gives how many."""
        ...

    def strays(self, known: Collection[str]) -> list[Stray]:
        """Places with objects that nobody takes in, for they belong to none of these pipelines."""
        ...


@dataclass(frozen=True)
class Alert:
    """Something that a person has to look at. ``key`` names the trouble, ``id`` this alert."""

    id: str
    key: str
    pipeline: str
    kind: str
    object: str
    reason: str
    next: str
    at: float


class Alerts(Protocol):
    """Tells people."""

    def send(self, alert: Alert) -> None:
        """Tell it; sending one twice is harmless. Raises ``Retryable`` when it must come again."""
        ...


@dataclass(frozen=True)
class TrainingJob:
    """A request to train. The name is a digest of everything that decides the result."""

    name: str
    container: str
    hyperparameters: Mapping[str, str]
    channels: Mapping[str, Sequence[Path]]  # train, validation: label first, no header
    golden: Path  # feature rows (no label) that the training process itself predicts
    max_runtime: float = 3600.0
    external_memory: bool = False  # the training data is read from disk in every round


@dataclass(frozen=True)
class Round:
    """The metrics of one boosting round, by name (``train-auc``, ``validation-auc``)."""

    index: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training job left."""

    job: str
    model: Path  # the booster file, UBJ or JSON, cut to the chosen round
    rounds: Sequence[Round]
    best_iteration: int  # index of the last round kept
    watched: str  # name of the metric that chose it, e.g. validation-logloss
    watched_value: float  # its logged value at best_iteration
    golden_predictions: Sequence[Sequence[float]]
    seconds: float
    adopted: bool = False  # an earlier identical job's result was taken


class Trainer(Protocol):
    """Runs training jobs under the container's contract."""

    def train(self, job: TrainingJob, on_round: Callable[[Round], None]) -> TrainingResult:
        """Run the job, or adopt the running or finished job of the same name.

        Raises ``PlatformFailed`` with the job's own failure text, ``InvalidSpec`` when the
        container refuses the hyperparameters, ``Retryable`` when it was ended from outside. What
        ``on_round`` raises leaves the job running.
        """
        ...

    def end(self, name: str) -> None:
        """End the job of this name if it runs; its result is not adopted then."""
        ...

    def tidy(self, names: str, keep: Collection[str], newest: int) -> int:
        """Forget ended jobs whose whole name matches a pattern; how many.

        Kept are running jobs, those named in ``keep``, and the ``newest`` of the others.
        """
        ...


@dataclass(frozen=True)
class EndpointState:
    """What an endpoint is doing now."""

    name: str
    state: Literal["Creating", "InService", "Failed", "Missing"]
    url: str = ""
    model_version: str = ""
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An endpoint's answer to one invocation."""

    status: int
    body: bytes
    content_type: str = ""


class Endpoints(Protocol):
    """Runs one serving process (or cloud endpoint) for each variant."""

    def deploy(
        self,
        name: str,
        archive: bytes,
        model_version: str,
        container: str,
        timeout: float,
        token: int = 0,
    ) -> EndpointState:
        """Serve this archive under this name, replacing what was there, and wait for it.

        What serves already is left. ``token`` is the fencing token of the deployer's lease: the
        highest one is kept with the endpoint, and ``Conflict`` is raised, with nothing started,
        for a lower one: a deployer that slept past its lease must not replace its successor's
        model. Returns when InService. Raises ``PlatformFailed`` with the end of the server's
        log; what served before serves on.
        """
        ...

    def describe(self, name: str) -> EndpointState:
        """The endpoint's state, never raising for an absent one."""
        ...

    def invoke(
        self,
        name: str,
        body: bytes,
        content_type: str = "text/csv",
        accept: str = "text/csv",
        archive: str = "",
    ) -> Reply:
        """One request to the endpoint. Raises ``Retryable`` when it cannot be reached.

        With the SHA-256 of an ``archive`` only a server of exactly these bytes is asked; while
        another model serves under this name, ``Retryable`` is raised.
        """
        ...

    def stop(self, name: str) -> None:
        """End the endpoint; stopping an absent one is harmless."""
        ...


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


MAX_STREAM_BYTES = 1 << 20  # of a record, the smallest limit of the platforms
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
        that is too large, ``PlatformFailed`` when the disk refuses.
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
        are left out. The same records are given again until they are settled.
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
