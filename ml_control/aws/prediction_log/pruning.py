"""What is dropped from the log: bulk that the lake has, and what is too old to be joined.

Dropping is one commit that moves a mark in the head: readers and writers take no notice of what is
before it from then on. The items are deleted after that, as many as there is time for. What is
noted of a request id, and the counts of minutes, go by DynamoDB's own time to live, which costs
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from ml_control.aws.prediction_log.draft import Draft
from ml_control.aws.prediction_log.groups import read_groups
from ml_control.aws.prediction_log.keys import Key, Keys, digest
from ml_control.aws.prediction_log.known import read_known
from ml_control.aws.prediction_log.reading import head_of
from ml_control.aws.prediction_log.store import ITEM, Store, key_of
from ml_control.aws.prediction_log.values import Item

_MOST_SECONDS = 30.0  # of one call; the next one goes on
_STEP = 40  # entries of one commit: each takes up to two actions
_SWEPT = 50  # groups deleted at a time
Do = Callable[[Callable[[Draft], Any]], Any]


def prune(
    store: Store, keys: Keys, do: Do, flushed: tuple[int, int], keep: int, seconds: float
) -> None:
    """See ``ports.PredictionLog.prune``; ``do`` makes a commit of a piece of work, ``flushed`` are
    the offsets of requests and of joined outcomes.
    """
    head = head_of(store, keys)
    if head is None:
        return
    deadline, old = time.monotonic() + _MOST_SECONDS, time.time() - seconds
    bare = _bare(store, keys, min(flushed[0], head.next - 1), keep)
    floor = _floor(store, keys, head.floor, min(flushed[0], head.next - 1), old)
    joined = _floor_joined(
        store, keys, head.floor_joined, min(flushed[1], head.next_joined - 1), old
    )

    def move(draft: Draft) -> None:
        draft.move(
            bare=max(draft.head.bare, bare),
            floor=max(draft.head.floor, floor),
            floor_joined=max(draft.head.floor_joined, joined),
        )

    do(move)
    while time.monotonic() < deadline and do(lambda draft: _give_up(draft, old)):
        pass
    for rollout in _idle(store, keys, old):
        while time.monotonic() < deadline and do(partial(_forget, id=rollout, old=old)):
            pass
    head = head_of(store, keys) or head
    for area, mark in (
        ("records", max(head.bare, head.floor)),
        ("requests", head.floor),
        ("joined", head.floor_joined),
    ):
        _sweep(store, keys, area, mark, deadline)


def _bare(store: Store, keys: Keys, flushed: int, keep: int) -> int:
    """Up to where captured records are dropped: what was flushed, but for the newest ones."""
    left = keep
    for group in read_groups(store, keys, "records", -1, backwards=True, page=8):
        if left >= group.count:
            left -= group.count
            continue
        places = sorted(group.records(), reverse=True)
        return min(flushed, places[left])
    return -1


def _floor(store: Store, keys: Keys, floor: int, flushed: int, old: float) -> int:
    """The last of the oldest requests, in order, that is flushed and before the time."""
    for group in read_groups(store, keys, "requests", floor, flushed + 1, page=50):
        for place, row in enumerate(group.rows(), group.first):
            if place <= floor:
                continue
            if place > flushed or row[8] >= old:
                return floor
            floor = place
    return floor


def _floor_joined(store: Store, keys: Keys, floor: int, flushed: int, old: float) -> int:
    """The same for joined outcomes, by the time of their commit."""
    for group in read_groups(store, keys, "joined", floor, page=50):
        if group.first > flushed or group.noted >= old:
            return floor
        floor = max(floor, min(group.last, flushed))
    return floor


def _give_up(draft: Draft, old: float) -> bool:
    """Give up outcomes whose request never came, and count them; whether there may be more."""
    keys = draft.keys
    last = keys.dated("waiting", max(0.0, old), "")[1]
    found = islice(draft.store.query(keys.area("waiting"), "0", last, page=_STEP), _STEP)
    listed = [key_of(item) for item in found]
    ids = {key: keys.request(key[1].partition("#")[2]) for key in listed}
    items = draft.store.get(ids.values())
    given = 0
    for key, request in ids.items():
        known = read_known("", items.get(request), draft.head.floor, draft.now)
        if known.offset or not known.waiting:
            draft.deletes.add(key)
            continue
        chunks = [keys.request(key[1].partition("#")[2], chunk) for chunk in range(known.more + 1)]
        if given and draft.actions_now + len(chunks) + 1 > 2 * _STEP + 15:
            return True
        draft.deletes |= {key, *chunks}
        given += known.waiting
    if given:
        draft.move(waiting=draft.head.waiting - given, expired=draft.head.expired + given)
    return len(listed) == _STEP


def _idle(store: Store, keys: Keys, old: float) -> Iterator[str]:
    """Rollouts that have had no request for so long, and whose entities are still there."""
    for item in store.query(keys.subject, "rollout#", "rollout#~~"):
        if "Forgotten" not in item and _last(item) < old:
            yield item[ITEM]["S"].partition("#")[2]


def _last(item: Item) -> float:
    return float(item.get("LastAt", {"N": 0})["N"])


def _forget(draft: Draft, id: str, old: float) -> bool:
    """Forget some entities of a rollout; whether there may be more. Its sums stay."""
    key = draft.keys.rollout(id)
    item = draft.store.get([key]).get(key)
    if item is None or "Forgotten" in item or _last(item) >= old:
        return False
    some = list(islice(_entities(draft, id), 2 * _STEP))
    draft.deletes |= set(some)
    if len(some) < 2 * _STEP:
        draft.puts[key] = {**item, "Forgotten": {"BOOL": True}}
    draft.move(forgets=draft.head.forgets + 1)
    return len(some) == 2 * _STEP


def _entities(draft: Draft, id: str) -> Iterator[Key]:
    for shard in draft.keys.shards(digest(id)):
        for item in draft.store.query(shard, "0", "~", page=2 * _STEP):
            yield key_of(item)


def _sweep(store: Store, keys: Keys, area: str, mark: int, deadline: float) -> None:
    """Delete the groups that are wholly before the mark, as long as there is time."""
    groups = read_groups(store, keys, area, -1, mark, page=50)
    while time.monotonic() < deadline and (some := list(islice(groups, _SWEPT))):
        store.delete([key for group in some for key in group.keys(keys, area)])
