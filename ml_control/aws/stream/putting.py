"""Putting records: in batches, with those that Kinesis failed sent again in the order of keys."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from ml_control.aws.client import Clients, translated
from ml_control.aws.stream.envelope import partition_key, sealed, sequence_of, shard_number
from ml_control.errors import MlControlError, Retryable
from ml_control.ports import StreamRecord

_RECORDS, _BYTES = 500, 5_000_000  # of one request; Kinesis takes 5 MiB with the keys
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0  # seconds after a request that Kinesis failed in part


class Putter:
    """Puts records until all are in, or none gets in for ``patience`` seconds.

    Within one request Kinesis promises no order, and a record that it fails leaves those behind it
    in. So a request has at most one record of each key, and a later one waits for its forerunner.
    """

    def __init__(self, clients: Clients, clock: Callable[[], float], patience: float) -> None:
        self._clients = clients
        self._clock = clock
        self._patience = patience

    def put(self, records: Sequence[StreamRecord]) -> list[int]:
        """The sequence number of each record. An error says how many are in; its detail ``put`` has
        their sequence numbers, in the order of the records, and None for those that are not.
        """
        now = self._clock()
        given: list[int | None] = [None] * len(records)
        pending, failures = list(range(len(records))), 0
        keys = [partition_key(record) for record in records]
        until = time.monotonic() + self._patience
        while pending:
            chosen = _chosen(pending, keys, records)
            error = self._send(chosen, keys, records, now, given)
            before, pending = len(pending), [p for p in pending if given[p] is None]
            if len(pending) < before:
                failures, until = 0, time.monotonic() + self._patience
            if error is None:
                continue
            failures += 1
            if not isinstance(error, Retryable) or time.monotonic() >= until:
                raise _told(error, given) from error
            wait = min(_FIRST_WAIT * 2.0**failures, _LONGEST_WAIT)
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads tries, no secret
        return [number for number in given if number is not None]

    def _send(
        self,
        chosen: list[int],
        keys: list[str],
        records: Sequence[StreamRecord],
        at: float,
        given: list[int | None],
    ) -> MlControlError | None:
        """One request; enters the numbers that it gave, and gives what stood in the way of more."""
        name = self._clients.settings.stream_name
        entries = [
            {"Data": sealed(records[place], at), "PartitionKey": keys[place]} for place in chosen
        ]
        try:
            with translated(f"stream {name}", "make the stream, or name it under [aws]"):
                answer = self._clients.client("kinesis").put_records(
                    StreamName=name, Records=entries
                )
        except MlControlError as error:
            return error
        failed: dict[str, Any] = {}
        for place, one in zip(chosen, answer["Records"], strict=True):
            if one.get("ErrorCode") or not one.get("SequenceNumber"):
                failed = failed or one
            else:
                shard = shard_number(one["ShardId"])
                given[place] = sequence_of(shard, int(one["SequenceNumber"]))
        if not failed:
            return None
        said = f"{failed.get('ErrorCode')}: {failed.get('ErrorMessage', '')}"
        return Retryable(f"stream {name}", said, "wait, or give the stream more shards")


def _chosen(pending: list[int], keys: list[str], records: Sequence[StreamRecord]) -> list[int]:
    """The places of the next request: the first record of each key, as many as it may have."""
    found: list[int] = []
    met: set[str] = set()
    size = 0
    for place in pending:
        if keys[place] in met:
            continue
        size += len(records[place].data) + 2048  # with its envelope and key
        if found and size > _BYTES:
            break
        met.add(keys[place])
        found.append(place)
        if len(found) == _RECORDS:
            break
    return found


def _told(error: MlControlError, given: list[int | None]) -> MlControlError:
    """The error with how many records are in."""
    done = sum(number is not None for number in given)
    if not done:
        return error
    return type(error)(
        error.object,
        f"{done} of {len(given)} records are in, the others are not: {error.reason}",
        f"{error.next}; then put the others alone",
        **{**error.detail, "put": given},
    )
