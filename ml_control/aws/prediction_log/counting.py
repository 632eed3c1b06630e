"""Counts of arms, variants and minutes: added to within the commit, read without the requests."""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from ml_control.aws.prediction_log.keys import Key, Keys
from ml_control.aws.prediction_log.store import Store, key_item
from ml_control.aws.prediction_log.values import Item, number
from ml_control.aws.schema import EXPIRES
from ml_control.ports import LATENCY_BOUNDS, Prediction, Traffic

DAY = 86400.0
_BUCKETS = len(LATENCY_BOUNDS) + 1
# Requests by bucket, errors, entities, expected entities: of an arm ("0" champion, "1" challenger)
# or a variant, which is what comes before.
_COUNT = re.compile(r"(?s)(.*)/([renx])(\d*)")


class Counts:
    """What a commit adds to the counts."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._sums: dict[Key, Counter[str]] = {}
        self._expected: dict[Key, dict[str, float]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def new(self, prediction: Prediction) -> int:
        """How many items more this request would add to."""
        return sum(key not in self._sums for key, _ in self._places(prediction))

    def add(self, prediction: Prediction) -> None:
        """A request more, in its latency's bucket."""
        bucket = bisect_left(LATENCY_BOUNDS, prediction.latency)
        for key, name in self._places(prediction):
            sums = self._sums.setdefault(key, Counter())
            sums[f"{name}/r{bucket}"] += 1
            if prediction.failed:
                sums[f"{name}/e"] += 1

    def expose(self, prediction: Prediction) -> None:
        """An entity more in the request's arm, expected in both by their shares."""
        key = self._keys.rollout(prediction.rollout_id)
        self._sums.setdefault(key, Counter())[f"{int(prediction.challenger)}/n"] += 1
        expected = self._expected.setdefault(key, {"0/x": 0.0, "1/x": 0.0})
        expected["0/x"] += 1.0 - prediction.share
        expected["1/x"] += prediction.share

    def _places(self, p: Prediction) -> Iterable[tuple[Key, str]]:
        yield self._keys.rollout(p.rollout_id), str(int(p.challenger))
        yield self._keys.minute(int(p.at // 60)), p.assigned
        yield self._keys.hour(int(p.at // 3600)), p.assigned

    def updates(self, days: float) -> list[tuple[Key, dict[str, Any]]]:
        """The changes by item, as an ``Update`` takes them."""
        now = time.time()
        return [
            (key, self._update(key, sums, now, days)) for key, sums in sorted(self._sums.items())
        ]

    def _update(self, key: Key, sums: Counter[str], now: float, days: float) -> dict[str, Any]:
        adds: dict[str, str] = {name: str(count) for name, count in sums.items()}
        adds |= {name: f"{sum:.15f}" for name, sum in self._expected.get(key, {}).items()}
        names = {f"#{place}": name for place, name in enumerate(adds)}
        values: dict[str, Any] = {f":{i}": number(value) for i, value in enumerate(adds.values())}
        parts = ", ".join(f"#{place} :{place}" for place in range(len(adds)))
        if key[1].startswith("rollout#"):
            more = "SET #at = :at REMOVE #forgotten"
            names |= {"#at": "LastAt", "#forgotten": "Forgotten"}
            values[":at"] = number(repr(now))
        else:
            more = "SET #expires = :expires"
            names["#expires"] = EXPIRES
            values[":expires"] = number(expiry(now, _begin(key) or now, days))
        return {
            "Key": key_item(key),
            "UpdateExpression": f"ADD {parts} {more}",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }


def expiry(now: float, at: float, days: float) -> int:
    """When something of this time need not be there any more: a day after it may go."""
    return int(min(max(now, at), now + 3650 * DAY) + (days + 1.0) * DAY) + 1


def expired(item: Item, now: float) -> bool:
    """Whether an item is past its time: DynamoDB removes it only days later."""
    return EXPIRES in item and float(item[EXPIRES]["N"]) <= now


def _begin(key: Key) -> float:
    kind, _, text = key[1].partition("#")
    return (int(text) - 10**17) * (60.0 if kind == "minute" else 3600.0)


def read_traffic(store: Store, keys: Keys, rollout_id: str) -> dict[str, Traffic]:
    """Counts of both arms of a rollout."""
    found = store.get([keys.rollout(rollout_id)])
    by_arm = _read(found.values())
    none = Traffic(latencies=(0,) * _BUCKETS)
    return {name: by_arm.get(arm, none) for name, arm in (("champion", "0"), ("challenger", "1"))}


def read_recent(store: Store, keys: Keys, since: float) -> dict[str, Traffic]:
    """Counts by variant since a time, to the minute: minutes of its hour, then whole hours."""
    minute, now = int(since // 60), time.time()
    hour = minute // 60 + (minute % 60 > 0)
    subject, first = keys.minute(minute)
    items = [*store.query(keys.subject, keys.hour(hour)[1], "hour#~")]
    if minute < hour * 60:
        items += store.query(subject, first, keys.minute(hour * 60 - 1)[1])
    return _read(item for item in items if not expired(item, now))


def _read(items: Iterable[Item]) -> dict[str, Traffic]:
    buckets: dict[str, list[int]] = {}
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for item in items:
        for name, value in item.items():
            if (match := _COUNT.fullmatch(name)) is None:
                continue
            owner, kind, bucket = match.groups()
            own = buckets.setdefault(owner, [0] * _BUCKETS)
            if kind == "r":
                own[int(bucket)] += int(value["N"])
            else:
                sums[owner, kind] += float(value["N"])
    return {
        owner: Traffic(
            entities=int(sums[owner, "n"]),
            expected=float(sums[owner, "x"]),
            requests=sum(own),
            errors=int(sums[owner, "e"]),
            latencies=tuple(own),
        )
        for owner, own in buckets.items()
    }
