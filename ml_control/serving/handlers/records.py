"""A batch of a stream's records: decoded, routed, asked of each variant once, and answered.

What the gateway is for one request, this is for many: the entity decides the variant; if that one
fails, the champion answers in its place and the failure is the assigned variant's. A record that
is unusable itself fails alone. Neither numpy nor xgboost is needed, so that Lambda runs it on the
events of Kinesis as well; with numpy another ``RowCodec`` is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_control.core.capture import captured, is_captured
from ml_control.core.records import Rollout
from ml_control.core.routing import all_to_challenger
from ml_control.errors import BadObject, MlControlError, NotProven, Retryable
from ml_control.ports import Prediction, StreamRecord
from ml_control.serving.handlers.asking import Ask, ask_all
from ml_control.serving.handlers.envelopes import Item, open_records
from ml_control.serving.handlers.inference import Assignment, arms
from ml_control.serving.handlers.row_codec import PLAIN, RowCodec
from ml_control.serving.handlers.steps import Served, Snapshot

_LONGEST = 300  # characters of a failure's reason


@dataclass
class Batch:
    """What became of a batch's records, by their sequence numbers.

    ``failed`` may be tried again; ``poison`` cannot be helped by that. What is in none of them
    waits: it stands behind a failed record of its key.
    """

    done: list[int] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)  # of ``done``, in its order
    failed: dict[int, str] = field(default_factory=dict)
    poison: dict[int, str] = field(default_factory=dict)


@dataclass
class _Group:
    """The records of one assigned variant, and what is known of them by their places."""

    assigned: Assignment
    items: list[Item]
    answers: dict[int, bytes] = field(default_factory=dict)
    served: dict[int, Served] = field(default_factory=dict)  # by others than the assigned one
    own: Served | None = None
    failures: dict[int, list[str]] = field(default_factory=dict)
    bad: dict[int, BadObject] = field(default_factory=dict)
    unreached: bool = False
    latency: float = 0.0


def answer_records(
    records: Sequence[StreamRecord],
    snapshot: Snapshot,
    ask: Ask,
    codec: RowCodec = PLAIN,
    clock: Callable[[], float] = time.time,
) -> Batch:
    """Answer records of one pipeline, in order.

    Raises ``NotProven`` when no model is live, and ``Retryable`` when no variant could be reached:
    then nothing is the records' fault, and all of them should come again.
    """
    batch = Batch()
    encodings = [one.features for one in snapshot.variants.values() if one.features is not None]
    items, bad = open_records(snapshot.pipeline, records, codec.opener(encodings))
    batch.poison.update((sequence, reason_of(error)) for sequence, error in bad.items())
    groups = _deal(snapshot.rollout, items)
    for group in groups:
        _ask_in_turn(group, snapshot, ask, codec)
    if any(group.unreached for group in groups) and not any(group.answers for group in groups):
        why = next(reasons for group in groups for reasons in group.failures.values())
        raise Retryable(
            f"{snapshot.pipeline} stream",
            f"no variant answered: {'; '.join(why)[:_LONGEST]}",
            "see 'ml-control status'; the records wait",
        )
    held = _held(groups)
    for group in groups:
        _collect(batch, group, snapshot, clock(), held)
    return batch


def reason_of(error: MlControlError) -> str:
    """A failure as it is kept with a record."""
    return f"{error.kind}: {error.reason}"[:_LONGEST]


def _deal(rollout: Rollout, items: list[Item]) -> list[_Group]:
    """The records by the variant that their entities belong to. Raises ``NotProven``."""
    both = arms(rollout)
    if both is None:
        step = f"run 'ml-control run {rollout.pipeline}'"
        raise NotProven(rollout.pipeline, "no model is live", step)
    if both.second is None or both.weight <= 0.0:
        return [_Group(both.first, items)] if items else []
    entities = [item.entity_id for item in items]
    dealt = all_to_challenger(rollout.id, entities, both.weight)
    groups = [
        _Group(
            one, [item for item, to_second in zip(items, dealt, strict=True) if to_second is own]
        )
        for one, own in ((both.first, False), (both.second, True))
    ]
    return [group for group in groups if group.items]


def _ask_in_turn(group: _Group, snapshot: Snapshot, ask: Ask, codec: RowCodec) -> None:
    """Ask the assigned variant for all, and those in its place for what it failed."""
    began = time.perf_counter()
    left = list(range(len(group.items)))
    fitted = False
    for name in (group.assigned.variant, *group.assigned.others):
        served = snapshot.variants.get(name)
        if served is None or served.features is None:
            why = served.unusable if served else "its endpoint is not known"
            _failed(group, dict.fromkeys(left, why), name)
            continue
        own = left
        rows = codec.encode(served.features, [group.items[place] for place in own])
        if fitted:
            _failed(group, {own[i]: error.reason for i, error in rows.bad.items()}, name)
        else:  # the first encoding says whether a record is one of this pipeline
            group.bad.update((own[i], error) for i, error in rows.bad.items())
            left = [place for place in left if place not in group.bad]
        fitted = True
        asked = ask_all(ask, served, served.features, rows)
        if name == group.assigned.variant:
            group.own, group.answers = served, asked.answers  # its places are the group's
        else:
            group.answers.update((own[i], answer) for i, answer in asked.answers.items())
            group.served.update((own[i], served) for i in asked.answers)
        _failed(group, {own[i]: why for i, why in asked.failures.items()}, name)
        group.unreached |= asked.unreached
        if len(asked.answers) == len(left):
            break
        left = [place for place in left if place not in group.answers]
    group.latency = time.perf_counter() - began


def _failed(group: _Group, reasons: dict[int, str], variant: str) -> None:
    for place, why in reasons.items():
        group.failures.setdefault(place, []).append(f"{variant}: {why}")


def _held(groups: list[_Group]) -> dict[str, int]:
    """Keys with a record that nobody answered: later records of theirs wait behind it."""
    held: dict[str, int] = {}
    for group in groups:
        for place in group.failures:
            if place not in group.answers:
                item = group.items[place]
                held[item.key] = min(item.sequence, held.get(item.key, item.sequence))
    return held


def _collect(
    batch: Batch, group: _Group, snapshot: Snapshot, at: float, held: dict[str, int]
) -> None:
    """Enter a group's records into the batch."""
    log, assigned, own = snapshot.log, group.assigned, group.own
    common: dict[str, Any] = {
        "pipeline": snapshot.pipeline,
        "request_id": "",
        "entity_id": "",
        "rollout_id": snapshot.rollout.id,
        "assigned": assigned.variant,
        "challenger": assigned.challenger,
        "share": assigned.share,
        "served": own.variant if own else "",
        "model_version": own.model_version if own else "",
        "at": at,
        "latency": group.latency,
        "rows": 1,
        "failed": False,
        "failure": "",
        "records": None,
        "answers": b"",
    }
    whole = log.capture >= 1.0 and not log.mask
    plain = not (group.failures or group.bad or held)
    for place, item in enumerate(group.items):
        fields = common.copy()
        if not plain and not _enter(batch, group, place, held, fields):
            continue
        fields["request_id"] = item.request_id
        fields["entity_id"] = item.entity_id
        fields["records"] = item.text if whole else _kept(item, snapshot)
        fields["answers"] = group.answers[place]
        batch.done.append(item.sequence)
        batch.predictions.append(_made(fields))


def _enter(
    batch: Batch, group: _Group, place: int, held: dict[str, int], fields: dict[str, Any]
) -> bool:
    """Whether a record of a group with failures was answered; by whom goes into ``fields``."""
    item = group.items[place]
    if place in group.bad:
        batch.poison[item.sequence] = reason_of(group.bad[place])
        return False
    if item.sequence > held.get(item.key, item.sequence):
        return False
    failure = group.failures.get(place, [])
    if place not in group.answers:
        batch.failed[item.sequence] = f"PlatformFailed: {'; '.join(failure)}"[:_LONGEST]
        return False
    if served := group.served.get(place):
        fields["served"], fields["model_version"] = served.variant, served.model_version
    if failure:
        fields["failed"], fields["failure"] = True, "; ".join(failure)[:_LONGEST]
    return True


def _made(fields: dict[str, Any]) -> Prediction:
    """A prediction of all these fields, five times as fast as by the constructor, which sets each
    field of a frozen class by a call.
    """
    prediction: Prediction = object.__new__(Prediction)
    object.__setattr__(prediction, "__dict__", fields)
    return prediction


def _kept(item: Item, snapshot: Snapshot) -> bytes | None:
    """The record as far as it is kept, under the rules of the pipeline's log."""
    if not is_captured(snapshot.log, item.request_id):
        return None
    return (
        captured([item.read()], snapshot.log, item.request_id) if snapshot.log.mask else item.text
    )
