"""Asking a variant for many rows: once, and in parts only to find the row that it cannot take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ml_control.core.features import FeatureSpec
from ml_control.errors import MlControlError, PlatformFailed, Retryable
from ml_control.ports import Reply
from ml_control.serving.handlers.bodies import MAX_BODY
from ml_control.serving.handlers.row_codec import Rows, answers_of
from ml_control.serving.handlers.steps import Served

Ask = Callable[[Served, bytes], Reply]  # rows as RecordIO; the reply is CSV. Raises ``Retryable``
# Halving 500 rows down to one bad one takes 18 calls; a server that takes nothing is not asked on.
_CALLS = 64
_BUSY = (429, 503)


@dataclass
class Asked:
    """What a variant made of rows: answers by place, and why there is none for the others."""

    answers: dict[int, bytes] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    unreached: bool = False


def ask_all(ask: Ask, served: Served, features: FeatureSpec, rows: Rows) -> Asked:
    """Ask a variant for all rows, in one call unless they are larger than one may be.

    A refused call is halved until the rows that are refused stand alone; the others are answered.
    """
    asked = Asked()
    most = max(1, MAX_BODY // rows.size)
    parts = [(i, min(i + most, len(rows.places))) for i in range(0, len(rows.places), most)]
    calls = _CALLS + len(parts)
    parts.reverse()
    while parts:
        begin, end = parts.pop()
        places = rows.places[begin:end]
        try:
            body = rows.body[begin * rows.size : end * rows.size]
            found = _ask(ask, served, features, body, end - begin)
        except Retryable as error:
            asked.unreached = True
            asked.failures.update(dict.fromkeys(places, error.reason))
            calls = 0  # the next part would only wait as long
        except MlControlError as error:
            calls -= 1
            if end - begin > 1 and calls > 0:
                middle = (begin + end) // 2
                parts += [(middle, end), (begin, middle)]
            else:
                asked.failures.update(dict.fromkeys(places, error.reason))
        else:
            asked.answers.update(zip(places, found, strict=True))
        if calls <= 0:
            for begin, end in parts:
                reason = f"not asked any more: {next(iter(asked.failures.values()), '')}"
                asked.failures.update(dict.fromkeys(rows.places[begin:end], reason))
            break
    return asked


def _ask(ask: Ask, served: Served, features: FeatureSpec, body: bytes, rows: int) -> list[bytes]:
    reply = ask(served, body)
    if reply.status == 200:
        return answers_of(features, rows, reply.body)
    told = f"answered {reply.status}: {reply.body[:200].decode(errors='replace')}"
    if reply.status in _BUSY:
        raise Retryable(f"endpoint {served.endpoint}", told, "try again in a moment")
    raise PlatformFailed(f"endpoint {served.endpoint}", told, "see the endpoint's log")
