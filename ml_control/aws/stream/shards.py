"""Reading shards: what Kinesis holds, read once for all pipelines that stand at the same place."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ml_control.aws.client import Clients, code_of, translated
from ml_control.aws.stream.envelope import opened, sequence_of, shard_number
from ml_control.errors import Unknown
from ml_control.ports import StreamRecord

PAGE = 2000  # records of one request
_HELD, _HELD_BYTES = 4000, 64 << 20  # of a pipeline in one shard, in memory
_LIST_SECONDS, _RETENTION_SECONDS = 30.0, 3600.0  # so long what was asked for is believed
_DAY = 24.0
_logger = logging.getLogger("ml_control")


class Place(NamedTuple):
    """Between two records: after the one with this number, or just before it. They compare."""

    number: int
    after: bool


HORIZON = Place(-1, True)  # before the oldest record that Kinesis keeps


@dataclass(frozen=True)
class Shard:
    """A shard as Kinesis lists it. One that was split or merged is closed, and has children."""

    id: str
    parents: tuple[str, ...]
    closed: bool

    @property
    def number(self) -> int:
        """Larger than its parents'."""
        return shard_number(self.id)


@dataclass(frozen=True)
class Held:
    """A record in memory, and when Kinesis took it."""

    record: StreamRecord
    number: int
    arrived: float


@dataclass
class Cursor:
    """How far a pipeline's records of a shard were read, and those that are not settled."""

    begin: Place  # what lies before is not in memory
    place: Place
    as_of: float | None  # all that arrived before then was read; None: nothing was ever read
    records: dict[int, Held] = field(default_factory=dict)  # by number, in order
    size: int = 0
    at_tip: bool = False
    ended: bool = False  # a closed shard, read to its end
    looked: float = float("-inf")  # monotonic seconds

    @property
    def full(self) -> bool:
        """Whether no more is taken into memory."""
        return len(self.records) >= _HELD or self.size >= _HELD_BYTES

    def take(self, held: Held) -> None:
        """Hold a record."""
        self.records[held.number] = held
        self.size += len(held.record.data)

    def drop(self, number: int) -> None:
        """Hold a record no longer."""
        held = self.records.pop(number, None)
        if held is not None:
            self.size -= len(held.record.data)


class Shards:
    """The shards of the stream, and the cursors of the pipelines that this process consumes."""

    def __init__(self, clients: Clients, clock: Callable[[], float]) -> None:
        self._clients = clients
        self._clock = clock
        self._cursors: dict[tuple[str, str], Cursor] = {}  # by shard and pipeline
        self._iterators: dict[tuple[str, Place], str] = {}
        self._listed: tuple[float, list[Shard]] = (float("-inf"), [])
        self._retention: tuple[float, float] = (float("-inf"), 0.0)
        self._strange: set[str] = set()

    def listed(self, *, anew: bool = False) -> list[Shard]:
        """All shards, parents before their children."""
        now = time.monotonic()
        if anew or now - self._listed[0] > _LIST_SECONDS:
            found, token = [], ""
            while True:
                with self._errors():
                    asked = {"NextToken": token} if token else {"StreamName": self._name}
                    answer = self._kinesis.list_shards(**asked)
                found += answer["Shards"]
                if not (token := answer.get("NextToken") or ""):
                    break
            shards = [_shard(one) for one in found]
            self._listed = (now, sorted(shards, key=lambda one: one.number))
        return self._listed[1]

    def has(self, id: str) -> bool:
        """Whether the stream has this shard; one that is not known yet is looked for."""
        return any(id == one.id for anew in (False, True) for one in self.listed(anew=anew))

    def cursor(self, pipeline: str, shard: Shard, begin: Place, as_of: float | None) -> Cursor:
        """The pipeline's cursor, which holds everything from ``begin`` to its place.

        What is in memory is kept where it fits; else reading begins there anew.
        """
        key = (shard.id, pipeline)
        known = self._cursors.get(key)
        if known is None or begin < known.begin or begin > known.place:
            known = self._cursors[key] = Cursor(begin, begin, as_of)
        elif as_of is not None and (known.as_of is None or as_of > known.as_of):
            known.as_of = as_of  # another process read on, or a person let it
        return known

    def forget(self, pipeline: str = "") -> None:
        """Hold nothing of a pipeline, or of any: it is read anew from where the registry says."""
        left = {key: one for key, one in self._cursors.items() if pipeline and key[1] != pipeline}
        self._cursors = left

    def advance(self, pipeline: str, shard: Shard) -> None:
        """One request at the pipeline's place; all pipelines at that place have room go on.

        Raises ``Unknown`` when what comes next may have been too old to be kept.
        """
        cursor = self._cursors[shard.id, pipeline]
        self._require_kept(pipeline, shard, cursor)
        page = self._page(shard, cursor.place)
        here = cursor.place
        for (id, name), one in self._cursors.items():
            if id != shard.id or one.place != here or (one.full and one is not cursor):
                continue
            for held in page.records:
                if held.record.pipeline == name:
                    one.take(held)
            one.place, one.at_tip, one.ended = page.to, page.at_tip, page.ended
            one.as_of, one.looked = page.as_of, time.monotonic()
        if page.ended and not shard.closed:
            self.listed(anew=True)  # its children are there now

    def beyond(self, pipeline: str, shard: Shard, place: Place) -> Iterator[list[Held]]:
        """The pipeline's records after a place, page by page, held by nobody."""
        while True:
            page = self._page(shard, place)
            yield [one for one in page.records if one.record.pipeline == pipeline]
            if page.at_tip or page.ended:
                return
            place = page.to

    def _page(self, shard: Shard, place: Place) -> _Page:
        """What follows a place: one request, or two when its iterator had expired."""
        with self._errors():
            iterator = self._iterator(shard.id, place)
            try:
                answer = self._kinesis.get_records(ShardIterator=iterator, Limit=PAGE)
            except Exception as error:
                if code_of(error) != "ExpiredIteratorException":
                    self._iterators[shard.id, place] = iterator  # it is good for the next try
                    raise
                iterator = self._iterator(shard.id, place)
                answer = self._kinesis.get_records(ShardIterator=iterator, Limit=PAGE)
        behind = float(answer.get("MillisBehindLatest") or 0) / 1000
        records = [one for one in map(self._held(shard), answer["Records"]) if one is not None]
        raw = answer["Records"]
        to = Place(int(raw[-1]["SequenceNumber"]), after=True) if raw else place
        following = answer.get("NextShardIterator")
        at_tip = behind <= 0 and len(raw) < PAGE
        ended = following is None or (shard.closed and at_tip and not raw)
        if following is not None:
            self._iterators[shard.id, to] = following
        return _Page(records, to, at_tip or ended, ended, self._clock() - behind)

    def _held(self, shard: Shard) -> Callable[[dict[str, Any]], Held | None]:
        def held(raw: dict[str, Any]) -> Held | None:
            number = int(raw["SequenceNumber"])
            record = opened(raw["Data"], sequence_of(shard.number, number))
            if record is None:
                if shard.id not in self._strange:
                    self._strange.add(shard.id)
                    _logger.warning(
                        "stream %s: record %d of %s was not put by ml-control and belongs to no "
                        "pipeline; put records with 'ml-control stream put' or KinesisStream",
                        self._name, number, shard.id,
                    )  # fmt: skip
                return None
            return Held(record, number, raw["ApproximateArrivalTimestamp"].timestamp())

        return held

    def _iterator(self, shard: str, place: Place) -> str:
        if (found := self._iterators.pop((shard, place), None)) is not None:
            return found
        where: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
        if place != HORIZON:
            kind = "AFTER_SEQUENCE_NUMBER" if place.after else "AT_SEQUENCE_NUMBER"
            where = {"ShardIteratorType": kind, "StartingSequenceNumber": str(place.number)}
        answer = self._kinesis.get_shard_iterator(StreamName=self._name, ShardId=shard, **where)
        return str(answer["ShardIterator"])

    def _require_kept(self, pipeline: str, shard: Shard, cursor: Cursor) -> None:
        """What comes next is still kept. Kinesis itself goes on silently behind a gap."""
        if cursor.as_of is None or self._clock() - cursor.as_of <= self.retention():
            return
        raise lost(pipeline, shard.id, cursor.as_of)

    def retention(self) -> float:
        """Seconds that Kinesis keeps a record."""
        now = time.monotonic()
        if now - self._retention[0] > _RETENTION_SECONDS:
            with self._errors():
                told = self._kinesis.describe_stream_summary(StreamName=self._name)
            hours = float(told["StreamDescriptionSummary"].get("RetentionPeriodHours") or _DAY)
            self._retention = (now, hours * 3600)
        return self._retention[1]

    @property
    def _kinesis(self) -> Any:
        return self._clients.client("kinesis")

    @property
    def _name(self) -> str:
        return self._clients.settings.stream_name

    def _errors(self) -> Any:
        return translated(f"stream {self._name}", "make the stream, or name it under [aws]")


@dataclass(frozen=True)
class _Page:
    """What one request gave."""

    records: list[Held]  # of every pipeline
    to: Place
    at_tip: bool
    ended: bool
    as_of: float


def _shard(told: dict[str, Any]) -> Shard:
    parents = (told.get("ParentShardId"), told.get("AdjacentParentShardId"))
    closed = "EndingSequenceNumber" in told.get("SequenceNumberRange", {})
    return Shard(told["ShardId"], tuple(one for one in parents if one), closed)


def lost(pipeline: str, shard: str, since: float) -> Unknown:
    """The refusal to go on behind what may have expired unread."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(since))
    return Unknown(
        f"stream of {pipeline}",
        f"nobody read {shard} since {when}, longer than Kinesis keeps records: what was put then "
        "may be gone",
        f"put it again if it matters; 'ml-control stream replay {pipeline}' reads on from the "
        "oldest record that is kept",
        shard=shard,
        since=since,
    )
