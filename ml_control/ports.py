"""What ml-control asks of a platform. Each port has an adapter under ``local`` and one under
``aws`` with the same file name, and one contract suite that both pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
        self, name: str, body: bytes, content_type: str = "text/csv", accept: str = "text/csv"
    ) -> Reply:
        """One request to the endpoint. Raises ``Retryable`` when it cannot be reached."""
        ...

    def stop(self, name: str) -> None:
        """End the endpoint; stopping an absent one is harmless."""
        ...
