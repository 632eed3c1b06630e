"""What is read from the log: single requests, and ranges in order that have no holes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ml_control.aws.prediction_log.entries import row_prediction
from ml_control.aws.prediction_log.groups import Group, get_groups, read_groups
from ml_control.aws.prediction_log.head import Head, read_head
from ml_control.aws.prediction_log.keys import Keys, digest
from ml_control.aws.prediction_log.known import read_known
from ml_control.aws.prediction_log.store import Store, pause
from ml_control.errors import Unknown
from ml_control.ports import Joined, Logged, Prediction

_T = TypeVar("_T")
_LOOKS = 10  # that a transaction in mid-write may take to be seen whole: about two seconds
_PAGE = 100


class _Hole(Exception):
    """Something that a commit wrote is not there: not yet, or dropped since the head was read."""


def head_of(store: Store, keys: Keys) -> Head | None:
    """The head of a log; None when nothing was ever written."""
    item = store.get([keys.head]).get(keys.head)
    return None if item is None else read_head(item)


def known(store: Store, requests: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these requests, by pipeline and id, are logged."""
    places = {one: Keys(one[0]).request(digest(one[1])) for one in requests}
    heads = {pipeline: Keys(pipeline).head for pipeline, _ in requests}
    items, now = store.get([*places.values(), *heads.values()]), time.time()
    floors = {
        pipeline: read_head(items[key]).floor if key in items else 0
        for pipeline, key in heads.items()
    }
    return {
        one
        for one, key in places.items()
        if read_known("", items.get(key), floors[one[0]], now).offset
    }


def find(store: Store, keys: Keys, request_id: str) -> Prediction | None:
    """One request, with its records where they are kept."""

    def look() -> Prediction | None:
        key = keys.request(digest(request_id))
        items = store.get([key, keys.head])
        if key not in items or keys.head not in items:
            return None
        head = read_head(items[keys.head])
        found = read_known("", items[key], head.floor, time.time())
        if not found.offset:
            return None
        bare = found.offset <= head.bare
        areas = ("requests",) if bare else ("requests", "records")
        groups = get_groups(store, keys, ((area, found.last) for area in areas))
        group = groups.get(("requests", found.last))
        records = groups.get(("records", found.last))
        if group is None or (group.count and not bare and records is None):
            raise _Hole
        row = group.rows()[found.offset - group.first]
        kept = records.records().get(found.offset) if records else None
        return row_prediction(keys.pipeline, row, kept)

    return _patiently(keys, look)


def after(store: Store, keys: Keys, offset: int, limit: int) -> list[Logged]:
    """Requests after an offset, in order."""

    def look() -> list[Logged]:
        if (head := head_of(store, keys)) is None or limit <= 0:
            return []
        start = max(offset, head.floor)
        groups = _range(store, keys, "requests", start, head.next - 1, limit)
        records = _records(store, keys, groups, max(start, head.bare))
        found: list[Logged] = []
        for group in groups:
            for place, row in enumerate(group.rows(), group.first):
                if place > start and len(found) < limit:
                    one = row_prediction(keys.pipeline, row, records.get(place))
                    found.append(Logged(place, one))
        return found

    return _patiently(keys, look)


def joined(store: Store, keys: Keys, offset: int, limit: int) -> list[Joined]:
    """Joined outcomes after an offset, in order."""

    def look() -> list[Joined]:
        if (head := head_of(store, keys)) is None or limit <= 0:
            return []
        start = max(offset, head.floor_joined)
        groups = _range(store, keys, "joined", start, head.next_joined - 1, limit)
        rows = (one for group in groups for one in enumerate(group.rows(), group.first))
        own = [(place, row) for place, row in rows if place > start]
        return [_joined(keys.pipeline, place, row) for place, row in own[:limit]]

    return _patiently(keys, look)


def newest(store: Store, keys: Keys, limit: int) -> list[Prediction]:
    """Answered requests with captured records, newest first."""

    def look() -> list[Prediction]:
        if (head := head_of(store, keys)) is None or limit <= 0:
            return []
        found: list[Prediction] = []
        start = max(head.bare, head.floor)
        for captured in read_groups(store, keys, "records", start, backwards=True, page=8):
            name = ("requests", captured.last)
            if (group := get_groups(store, keys, [name]).get(name)) is None:
                raise _Hole
            rows, records = group.rows(), captured.records()
            for place in sorted((place for place in records if place > start), reverse=True):
                row = rows[place - group.first]
                if row[6]:
                    found.append(row_prediction(keys.pipeline, row, records[place]))
                if len(found) == limit:
                    return found
        return found

    return _patiently(keys, look)


def _range(store: Store, keys: Keys, area: str, start: int, last: int, limit: int) -> list[Group]:
    """Groups from after ``start`` on, one following the other, with at least ``limit`` rows or
    all up to ``last``.
    """
    found: list[Group] = []
    expected = start + 1
    if expected > last:
        return []
    for group in read_groups(store, keys, area, start, page=min(limit, _PAGE)):
        if group.first > expected:  # one before it is not seen yet
            break
        found.append(group)
        expected = group.last + 1
        if expected > last or expected - start > limit:
            break
    else:
        if expected <= last:
            raise _Hole
    if not found:
        raise _Hole
    return found


def _records(store: Store, keys: Keys, groups: Sequence[Group], bare: int) -> dict[int, bytes]:
    """The captured records of these groups, by offset, that are not dropped."""
    wanted = {group.last for group in groups if group.count and group.last > bare}
    if not wanted:
        return {}
    found: dict[int, bytes] = {}
    for group in read_groups(store, keys, "records", min(wanted) - 1, max(wanted)):
        wanted.discard(group.last)
        found.update((place, blob) for place, blob in group.records().items() if place > bare)
    if wanted:
        raise _Hole
    return found


def _patiently(keys: Keys, look: Callable[[], _T]) -> _T:
    """What is seen once what is being written is there. Raises ``Unknown`` when it never is."""
    for attempt in range(_LOOKS):
        try:
            return look()
        except _Hole:
            pause(attempt)
    raise Unknown(
        keys.subject,
        "requests or outcomes that were logged are not in the table",
        "restore the table to a point in time; what was flushed is in the lake",
    )


def _joined(pipeline: str, offset: int, row: Sequence[Any]) -> Joined:
    return Joined(
        offset=offset, pipeline=pipeline, request_id=row[0], index=row[1], entity_id=row[2],
        rollout_id=row[3], challenger=row[4], share=row[5], served=row[6], model_version=row[7],
        label=row[8], score=float("nan") if row[9] is None else row[9],
        outcome=json.loads(row[10]), predicted_at=row[11], told_at=row[12], first=row[13],
    )  # fmt: skip
