"""Outcomes within a commit: joined to their request, or kept until it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ml_control.aws.prediction_log.counting import expiry
from ml_control.aws.prediction_log.draft import Draft
from ml_control.aws.prediction_log.entries import Telling
from ml_control.aws.prediction_log.known import CHUNK, Known
from ml_control.aws.prediction_log.store import Refused, key_item
from ml_control.aws.prediction_log.values import Item, binary, number, squeezed
from ml_control.aws.schema import EXPIRES
from ml_control.core.joining import answer_of, answers_of, require_same, unfit
from ml_control.errors import BadObject


class Missing(Refused):
    """The group of a request that is logged is not there: not yet, or not any more."""


def tell(draft: Draft, telling: Telling) -> list[str]:
    """See ``ports.PredictionLog.tell``. Nothing is changed before everything was checked."""
    known = draft.known[telling.id]
    chunks = {index // CHUNK for index, _, _ in telling.outcomes}
    draft.require(len(chunks | {0}) + 3, sum(300 + len(text) for _, text, _ in telling.outcomes))
    row = _row(draft, known) if known.offset else None
    answers = None if row is None else answers_of(row[13].encode("latin-1"), failed=row[11])
    object = f"{draft.keys.pipeline} {telling.request_id}"
    earlier, told = known.outcomes(), []
    new: list[tuple[int, str, float]] = []
    for index, text, at in telling.outcomes:
        if answers is not None and (why := unfit(index, answers)):
            raise BadObject(object, why, "correct the outcome")
        if index in earlier:
            require_same(object, index, earlier[index][0], text)
            told.append("known")
            continue
        told.append("joined" if known.offset else "waiting")
        earlier[index] = (text, at)
        new.append((index, text, at))
    if not new:
        return told
    for one in new:
        known.note(*one)
    if row is not None and answers is not None:
        join(draft, known, row, answers, new)
    else:
        _wait(draft, known, len(new))
    draft.change(known)
    return told


def _row(draft: Draft, known: Known) -> Sequence[Any]:
    """The row of a logged request."""
    if known.commit == draft.commit:
        found: list[Any] = orjson.loads(draft.row(known.offset))
        return found
    group = draft.group_of(known)
    if group is None:
        raise Missing
    row: list[Any] = group.rows()[known.offset - group.first]
    return row


def _wait(draft: Draft, known: Known, count: int) -> None:
    """Keep outcomes until their request comes, listed by the time when the last of them came."""
    if known.waiting:
        _unlist(draft, known)
    known.waiting += count
    known.noted = draft.now
    key = draft.keys.dated("waiting", known.noted, known.id)
    draft.deletes.discard(key)
    draft.puts[key] = key_item(key)
    draft.move(waiting=draft.head.waiting + count)


def _unlist(draft: Draft, known: Known) -> None:
    key = draft.keys.dated("waiting", known.noted, known.id)
    if draft.puts.pop(key, None) is None:
        draft.deletes.add(key)


def join_waiting(draft: Draft, known: Known, row: Sequence[Any]) -> None:
    """Join what waited for a request that is logged just now; what cannot be is set aside."""
    answers = answers_of(row[13].encode("latin-1"), failed=row[11])
    outcomes = sorted((index, *one) for index, one in known.outcomes().items())
    unfitting = [(*one, unfit(one[0], answers)) for one in outcomes if unfit(one[0], answers)]
    _unlist(draft, known)
    for index, *_ in unfitting:
        known.drop(index)
    if unfitting:
        key = draft.keys.dated("aside", draft.now, known.id)
        draft.puts[key] = _aside(draft, key_item(key), row[0], unfitting)
    known.changed |= set(known.told)
    draft.move(
        waiting=draft.head.waiting - known.waiting,
        unjoinable=draft.head.unjoinable + len(unfitting),
    )
    known.waiting, known.noted = 0, 0.0
    join(draft, known, row, answers, [one for one in outcomes if not unfit(one[0], answers)])


def _aside(draft: Draft, item: Item, request_id: str, unfitting: Sequence[Any]) -> Item:
    return {
        **item,
        "Blob": binary(squeezed([orjson.dumps([request_id, *one]) for one in unfitting[:CHUNK]])),
        EXPIRES: number(expiry(draft.now, draft.now, draft.days)),
    }


def join(
    draft: Draft,
    known: Known,
    row: Sequence[Any],
    answers: Sequence[Any],
    outcomes: Sequence[tuple[int, str, float]],
) -> None:
    """Put outcomes beside their request's row; the first one of an exposed entity is marked."""
    if not outcomes:
        return
    first = False
    if known.entity:
        key = draft.keys.seen(known.rollout, known.entity)
        first = draft.exposed.get(key) is False
        if first:
            draft.expose(key, judged=True)
    for place, (index, text, at) in enumerate(outcomes):
        label, score = answer_of(answers[index])
        told = [
            row[0], index, row[1], row[2], row[4], row[5], row[6], row[7], label, score, text,
            row[8], at, first and place == 0,
        ]  # fmt: skip
        draft.add_joined(orjson.dumps(told))
