"""Kinesis in memory, as the real one behaves where emulators do not: partial failures, throttling,
closed shards that end, iterators that expire, records that are kept for a day.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from hashlib import md5
from types import SimpleNamespace

from botocore.exceptions import ClientError

FIRST = 49590338271490256608559692538361571095921575989136588898
HASHES = 1 << 128


class Shard:
    """Records by number, a range of hashes, and the parents that it came from."""

    def __init__(self, number, low, high, parents=()):
        self.id = f"shardId-{number:012d}"
        self.low, self.high, self.parents = low, high, parents
        self.records, self.closed = [], False


class FakeKinesis:
    """Speaks as boto3's client does. ``refuse(entry)`` tells which entries of a put fail."""

    def __init__(self, shards=1, clock=lambda: 1_780_000_000.0, hours=24):
        self.clock, self.hours = clock, hours
        size = HASHES // shards
        self.shards = {}
        for n in range(shards):
            shard = Shard(n, n * size, HASHES if n == shards - 1 else (n + 1) * size)
            self.shards[shard.id] = shard
        self.numbers = {}
        self.iterators, self.tokens = {}, itertools.count()
        self.refuse = lambda entry: False
        self.errors = []  # raised by the next calls, in order; None lets one pass
        self.calls = []
        self.page = 10_000
        self.executed_errors = []  # the next puts are done, and then raise these

    def _called(self, name):
        self.calls.append(name)
        if self.errors and (code := self.errors.pop(0)):
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, name)

    def split(self, id):
        """Close a shard; two children take its range."""
        shard = self.shards[id]
        shard.closed = True
        middle, number = (shard.low + shard.high) // 2, len(self.numbers) + len(self.shards) + 10
        for n, (low, high) in enumerate(((shard.low, middle), (middle, shard.high))):
            child = Shard(number + n, low, high, (id,))
            self.shards[child.id] = child

    def merge(self, first, second):
        """Close two neighbours; one child takes their ranges."""
        one, other = self.shards[first], self.shards[second]
        one.closed = other.closed = True
        number = max(int(id[-12:]) for id in self.shards) + 1
        child = Shard(number, one.low, other.high, (first, second))
        self.shards[child.id] = child

    def expire(self, shards=False):
        """Forget what is older than the retention; also closed shards that are empty then."""
        oldest = self.clock() - self.hours * 3600
        for shard in self.shards.values():
            shard.records = [one for one in shard.records if one["at"] >= oldest]
        if shards:
            self.shards = {
                id: one for id, one in self.shards.items() if one.records or not one.closed
            }

    def lose_iterators(self):
        """Five minutes went by."""
        self.iterators = {}

    def put_records(self, **asked):
        records = asked["Records"]
        self._called("PutRecords")
        assert len(records) <= 500
        assert sum(len(one["Data"]) + len(one["PartitionKey"]) for one in records) <= 5 << 20
        found = []
        for entry in records:
            assert len(entry["Data"]) + len(entry["PartitionKey"]) <= 1 << 20
            if self.refuse(entry):
                code = "ProvisionedThroughputExceededException"
                found.append({"ErrorCode": code, "ErrorMessage": "Rate exceeded"})
                continue
            place = int.from_bytes(md5(entry["PartitionKey"].encode()).digest(), "big")
            shard = next(
                s for s in self.shards.values() if not s.closed and s.low <= place < s.high
            )
            number = self.numbers.get(shard.id, FIRST) + 7
            self.numbers[shard.id] = number
            shard.records.append({"number": number, "data": entry["Data"], "at": self.clock()})
            found.append({"SequenceNumber": str(number), "ShardId": shard.id})
        if self.executed_errors:
            raise self.executed_errors.pop(0)
        return {"FailedRecordCount": sum("ErrorCode" in one for one in found), "Records": found}

    def list_shards(self, **asked):
        self._called("ListShards")
        shards = list(self.shards.values())
        begin = int(asked.get("NextToken", 0))
        told = []
        for shard in shards[begin : begin + 2]:
            one = {"ShardId": shard.id, "SequenceNumberRange": {"StartingSequenceNumber": "0"}}
            names = ("ParentShardId", "AdjacentParentShardId")
            one |= dict(zip(names, shard.parents, strict=False))
            if shard.closed:
                one["SequenceNumberRange"]["EndingSequenceNumber"] = str(FIRST * 2)
            told.append(one)
        more = {"NextToken": str(begin + 2)} if begin + 2 < len(shards) else {}
        return {"Shards": told, **more}

    def describe_stream_summary(self, **_):
        return {"StreamDescriptionSummary": {"RetentionPeriodHours": self.hours}}

    def get_shard_iterator(self, **where):
        self._called("GetShardIterator")
        number = int(where.get("StartingSequenceNumber", -1))
        if where["ShardIteratorType"] == "AT_SEQUENCE_NUMBER":
            number -= 1
        token = f"iterator {next(self.tokens)}"
        self.iterators[token] = (where["ShardId"], number)
        return {"ShardIterator": token}

    def get_records(self, **asked):
        iterator = asked["ShardIterator"]
        self._called("GetRecords")
        if iterator not in self.iterators:
            raise ClientError(
                {"Error": {"Code": "ExpiredIteratorException", "Message": "old"}}, "GetRecords"
            )
        id, number = self.iterators[iterator]
        shard = self.shards[id]
        left = [one for one in shard.records if one["number"] > number]
        given = left[: min(asked["Limit"], self.page)]
        more = left[len(given) :]
        behind = max(int((self.clock() - more[0]["at"]) * 1000), 1) if more else 0
        answer = {
            "Records": [
                {
                    "SequenceNumber": str(one["number"]),
                    "Data": one["data"],
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(one["at"], UTC),
                }
                for one in given
            ],
            "MillisBehindLatest": behind,
        }
        if not (shard.closed and not more):
            token = f"iterator {next(self.tokens)}"
            self.iterators[token] = (id, given[-1]["number"] if given else number)
            answer["NextShardIterator"] = token
        return answer


def clients_of(kinesis):
    """What an adapter takes: clients of which only Kinesis' is there."""
    settings = SimpleNamespace(stream_name="records")
    return SimpleNamespace(settings=settings, client=lambda service: {"kinesis": kinesis}[service])
