"""Units of work within a commit: what they need is read together, then each is done in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ml_control.aws.prediction_log.counting import expiry
from ml_control.aws.prediction_log.draft import Draft
from ml_control.aws.prediction_log.entries import Entry, Telling, Unit, fit
from ml_control.aws.prediction_log.keys import Key
from ml_control.aws.prediction_log.known import CHUNK, Known, read_known, read_told
from ml_control.aws.prediction_log.outcomes import join_waiting, tell
from ml_control.aws.prediction_log.values import Item


def load(draft: Draft, units: Sequence[Unit], *, careful: bool) -> None:
    """Read what these units need. Unless ``careful``, ids of requests are taken to be new."""
    tellings = [unit for unit in units if isinstance(unit, Telling)]
    entries = [unit for unit in units if isinstance(unit, Entry)]
    told = {one.id for one in tellings}
    keys: set[Key] = set()
    ids: set[str] = set(told)
    for telling in tellings:
        chunks = {0} | {index // CHUNK for index, _, _ in telling.outcomes}
        keys |= {draft.keys.request(telling.id, chunk) for chunk in chunks}
    for entry in entries:
        if careful or entry.tried:
            ids.add(entry.id)
        if (key := _seen(draft, entry)) is None:
            continue
        # Whether it was judged may have changed, and matters where an outcome is joined.
        if key in draft.seen.judged and entry.id not in told:
            draft.exposed[key] = draft.seen.judged[key]
        else:
            keys.add(key)
    found = draft.store.get([*keys, *(draft.keys.request(id) for id in ids)])
    _note_exposed(draft, found)
    for id in ids:
        item = found.get(draft.keys.request(id))
        draft.known[id] = read_known(id, item, draft.before.floor, draft.now)
    for entry in entries:
        draft.known.setdefault(entry.id, Known(entry.id, unread=True))
    _load_more(draft, tellings, entries, found)


def _load_more(
    draft: Draft, tellings: Sequence[Telling], entries: Sequence[Entry], found: dict[Key, Item]
) -> None:
    """What only what was read shows to be needed: chunks, groups, and entities of outcomes."""
    more: set[Key] = set()
    chunks: set[tuple[str, int]] = set()
    lasts: set[int] = set()
    for telling in tellings:
        known = draft.known[telling.id]
        for chunk in {index // CHUNK for index, _, _ in telling.outcomes} - {0}:
            if chunk <= known.more:
                known.told[chunk] = read_told(found.get(draft.keys.request(known.id, chunk)))
        if known.offset:
            lasts.add(known.last)
            if known.entity:
                more.add(draft.keys.seen(known.rollout, known.entity))
    for entry in entries:
        known = draft.known[entry.id]
        if known.waiting:
            chunks |= {(known.id, chunk) for chunk in range(1, known.more + 1)}
            if (key := _seen(draft, entry)) is not None:
                more.add(key)
    again = draft.store.get([*more, *(draft.keys.request(*one) for one in chunks)])
    _note_exposed(draft, again)
    for id, chunk in chunks:
        draft.known[id].told[chunk] = read_told(again.get(draft.keys.request(id, chunk)))
    if lasts:
        draft.load_groups(lasts)


def _seen(draft: Draft, entry: Entry) -> Key | None:
    """Where a request's entity is noted; nowhere while the challenger has no share."""
    if entry.prediction.share <= 0.0:
        return None
    return draft.keys.seen(entry.rollout, entry.entity)


def _note_exposed(draft: Draft, found: dict[Key, Item]) -> None:
    for key, item in found.items():
        if "Judged" in item:
            draft.exposed[key] = bool(item["Judged"]["BOOL"])


def take(draft: Draft, unit: Unit) -> Any:
    """Do a unit. Raises ``Full``, with nothing changed, and our errors, which are its answer."""
    if isinstance(unit, Entry):
        return _append(draft, unit)
    if isinstance(unit, Telling):
        return tell(draft, unit)
    return unit.work(draft)


def _append(draft: Draft, entry: Entry) -> bool:
    """Log a request; whether it is new. Nothing is counted of one that is known."""
    known = draft.known[entry.id]
    if known.offset:
        own = known.commit in entry.tried  # by us, but the answer was lost
        known.commit = "" if own else known.commit
        return own
    fit(entry)
    p = entry.prediction
    key = _seen(draft, entry)
    fresh = key is not None and key not in draft.exposed
    waiting = known.more + 4 if known.waiting else 0
    size = entry.size + sum(400 + len(text) for text, _ in known.outcomes().values())
    draft.require(1 + fresh + draft.counts.new(p) + waiting, size)
    if key is not None:
        known.rollout, known.entity = entry.rollout, entry.entity
        if fresh:
            draft.expose(key, judged=False)
            draft.counts.expose(p)
    draft.counts.add(p)
    known.expires = expiry(draft.now, p.at, draft.days)
    draft.add_row(known, entry.row, entry.records)
    if known.waiting:
        join_waiting(draft, known, orjson.loads(entry.row))
    return True
