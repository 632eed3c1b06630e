"""The records that ml-control keeps: what each means, and what names it.

All are frozen and survive a round trip through JSON. A digest property is the name by which
other records refer to this one.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from ml_control.core.digests import digest_of, sha256

EventState = Literal["pending", "claimed", "done", "quarantined", "superseded", "parked"]
EVENT_STATES: tuple[EventState, ...] = get_args(EventState)
VariantName = Literal["a", "b"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
VARIANTS: tuple[VariantName, VariantName] = ("a", "b")


class Record(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the registry and the lake store it."""
        return self.model_dump(mode="json")


class Event(Record):
    """One version of one object, and what became of it.

    Identity is (bucket, key, version); the partition is fixed when it is first recorded. The
    version is the SHA-256 of the content or the id under which a bucket keeps it for ever.
    ``seq`` orders the versions of a key: the highest recorded one is current.
    """

    pipeline: str
    partition: str
    bucket: str
    key: str
    version: str
    size: int
    path: str  # where the bytes are: a lake key that is never written twice
    put: str = ""  # the act of putting it that was last recorded, if its source can tell them apart
    digest: str = ""  # SHA-256 of the content, if it was known and is not the version
    order: str = ""  # where its source put it among the versions of its key, if it says
    seq: int = 0
    recorded_at: float = 0.0
    state: EventState = "pending"
    run: str | None = None
    attempt: int = 0
    reason: str | None = None

    @cached_property
    def id(self) -> str:
        """Short hash of the identity."""
        return sha256("\0".join((self.bucket, self.key, self.version)).encode())[:24]

    @property
    def content(self) -> str:
        """SHA-256 that the bytes must have; nothing before they were first read."""
        return _content(self.digest, self.version)


class ObjectRef(Record):
    """A pinned version of an object inside a raw manifest."""

    key: str
    version: str
    path: str
    size: int
    rows: int
    seq: int
    digest: str = ""  # SHA-256 of the bytes that were read when it was admitted

    @property
    def content(self) -> str:
        """SHA-256 that the bytes must have; older manifests have it as the version."""
        return _content(self.digest, self.version)


def _content(digest: str, version: str) -> str:
    return digest or (version if _SHA256.fullmatch(version) else "")


class RawManifest(Record):
    """The admitted objects of one partition, sorted by key."""

    pipeline: str
    partition: str
    objects: tuple[ObjectRef, ...]

    @cached_property
    def digest(self) -> str:
        """Names the content: keys and versions, not when or by whom they were admitted."""
        return digest_of(
            [self.pipeline, self.partition, [[o.key, o.version] for o in self.objects]]
        )

    @property
    def rows(self) -> int:
        """Records in all objects."""
        return sum(item.rows for item in self.objects)


class FileRef(Record):
    """A file in the lake with the digest of its bytes."""

    path: str
    digest: str
    size: int
    rows: int = 0


class ProcessedManifest(Record):
    """The typed, split and audited Parquet files of one partition."""

    pipeline: str
    partition: str
    raw_digest: str
    transform_digest: str
    files: tuple[FileRef, ...]
    rows: int
    splits: dict[str, int]
    profile: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """Names the content: the bytes of the files, the transformation that made them, and what
        is told of them here, for features are fitted to the profile.
        """
        return digest_of([self.digest_of_files, self.rows, self.splits, self.profile])

    @cached_property
    def digest_of_files(self) -> str:
        """The name without what is told of the files: how earlier versions named the content."""
        return digest_of(
            [self.pipeline, self.partition, self.transform_digest, [f.digest for f in self.files]]
        )


class CheckOutcome(Record):
    """The result of one data check. One that is not blocking is shown and refuses nothing."""

    name: str
    passed: bool
    reason: str
    details: dict[str, Any] = Field(default_factory=dict)
    blocking: bool = True

    @property
    def refuses(self) -> bool:
        """Whether a partition with this outcome must not be published."""
        return self.blocking and not self.passed


class Audit(Record):
    """The recorded data checks of one exact data version under one quality configuration."""

    raw_digest: str
    data_digest: str
    quality_digest: str
    passed: bool
    checks: tuple[CheckOutcome, ...]
    at: float
    run: str


class Published(Record):
    """A pointer to a published manifest."""

    digest: str
    path: str
    rows: int
    at: float
    run: str


class Request(Record):
    """The runs asked for a partition's work: level-based retries count from it.

    ``attempt`` counts runs that began; ``asked`` the requests made since, of which none began yet.
    """

    key: str
    attempt: int = 0
    asked: int = 0
    at: float = 0.0


class PartitionState(Record):
    """Everything the platform holds true about one partition."""

    pipeline: str
    partition: str
    raw: Published | None = None
    processed: Published | None = None
    processed_from: str | None = None  # the raw digest behind ``processed``
    audit: Audit | None = None  # of ``processed``
    refused: Audit | None = None  # the newest audit, if it failed
    request: Request | None = None

    @property
    def stale(self) -> bool:
        """Raw content that was neither published as processed nor refused by its checks."""
        if self.raw is None or self.raw.digest == self.processed_from:
            return False
        return self.refused is None or self.refused.raw_digest != self.raw.digest


class DatasetPart(Record):
    """One partition's data version within a dataset."""

    partition: str
    digest: str
    path: str
    rows: int


class Dataset(Record):
    """The published manifests a model is trained on, oldest partition first."""

    pipeline: str
    parts: tuple[DatasetPart, ...]

    @cached_property
    def digest(self) -> str:
        """Names the exact data: partitions and their data versions."""
        return digest_of([self.pipeline, [[p.partition, p.digest] for p in self.parts]])

    @property
    def rows(self) -> int:
        """Rows in all partitions."""
        return sum(part.rows for part in self.parts)


class ModelVersion(Record):
    """A packaged model. Its version is the digest of the manifest over its files."""

    pipeline: str
    version: str
    files: dict[str, str]  # file name -> sha256 of its bytes
    prefix: str  # lake prefix in the artifacts area
    container: str
    dataset: Dataset
    features_digest: str
    test_set: str
    training_job: str
    hyperparameters: dict[str, str]
    best_iteration: int
    rounds: int
    metrics: dict[str, float]
    created_at: float
    run: str


class GateResult(Record):
    """What one gate found."""

    name: str
    passed: bool
    reason: str
    observed: float | None = None
    required: str = ""
    evidence: dict[str, Any] = Field(default_factory=dict)


class Verdict(Record):
    """Whether exactly this model version may be deployed, and on what evidence. Append-only."""

    pipeline: str
    model_version: str
    gate_config: str
    champion: str | None
    test_set: str
    passed: bool
    gates: tuple[GateResult, ...]
    data_checks: tuple[dict[str, Any], ...]
    metrics: dict[str, float]
    at: float
    run: str

    @cached_property
    def key(self) -> str:
        """Names the question that was answered; the same question has one answer."""
        return digest_of([self.model_version, self.gate_config, self.champion, self.test_set])

    @property
    def failed(self) -> list[str]:
        """Names of the gates that said no."""
        return [gate.name for gate in self.gates if not gate.passed]


class Lease(Record):
    """The right to change one (pipeline, stage), until it expires or is released."""

    pipeline: str
    stage: str
    holder: str
    token: int  # grows with every holder: a write with an older token is refused
    nonce: str = ""  # never given out twice, also not after the registry went back in time
    expires_at: float


class Variant(Record):
    """What one of a pipeline's two endpoints was last proven to serve."""

    endpoint: str
    model_version: str
    verdict: str  # key of the passing verdict it was deployed on
    proven_live_at: float


class Rollout(Record):
    """The one record of routing. Changed only by compare-and-set with a fencing token.

    While ``in_progress`` the ``challenger`` is judged: in ``shadow`` it answers replayed requests
    and takes no traffic, in ``canary`` and ``experiment`` it takes its weight. ``halted``: we
    cannot tell what is true, the weights stand, and a person is asked. The ``id`` is new for every
    challenger and seeds the assignment of entities, so it stays while weights change.
    """

    pipeline: str
    id: str
    version: int = 0
    champion: str | None = None  # model version
    variants: dict[str, Variant] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    strategy: str = "all_at_once"
    state: Literal["idle", "in_progress", "halted"] = "idle"
    phase: Literal["", "shadow", "canary", "experiment"] = ""
    challenger: str | None = None  # the variant under judgement
    step: int = 0  # of a canary
    started_at: float = 0.0  # when this challenger's rollout began
    step_at: float = 0.0  # when the present phase or step began
    losing_since: dict[str, float] = Field(default_factory=dict)  # variants kept for a rollback
    previous: Variant | None = None  # what was champion before, also after it was retired
    rolled_back: tuple[str, ...] = ()  # model versions that lost live: never promoted again
    set_aside: tuple[str, ...] = ()  # versions judged without a result: only a person promotes them
    ended: Literal["", "promoted", "rolled_back", "kept"] = ""  # how the rollout of this id ended
    halted_because: str = ""
    paused: bool = False  # a person stopped every automatic step
    updated_at: float = 0.0

    @property
    def live(self) -> str | None:
        """The champion's variant if it takes traffic, else the variant with the most."""
        taking = {name: weight for name, weight in self.weights.items() if weight > 0}
        for name in taking:
            entry = self.variants.get(name)
            if entry is not None and entry.model_version == self.champion:
                return name
        return max(taking, key=lambda name: taking[name], default=None)

    @property
    def share(self) -> float:
        """The challenger's share of entities; 0 without one."""
        return self.weights.get(self.challenger, 0.0) if self.challenger else 0.0


class Decision(Record):
    """One entry of a pipeline's history; each carries the hash of the one before it."""

    pipeline: str
    seq: int
    at: float
    actor: str
    action: str
    subject: str
    because: str
    details: dict[str, Any] = Field(default_factory=dict)
    previous: str = ""
    hash: str = ""

    def sealed(self) -> Decision:
        """This decision with its hash, computed over everything else."""
        body = self.model_dump(mode="json", exclude={"hash"})
        return self.model_copy(update={"hash": digest_of(body)})
