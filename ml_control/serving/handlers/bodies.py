"""What requests carry and answers give, as types, and their strict JSON.

The types are also the OpenAPI document: what it allows is what is taken. Refused are unknown and
repeated keys, NaN and Infinity, texts that are no UTF-8, deeper nesting than the types have, and
anything after the end.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import msgspec

from ml_control.errors import BadObject

MAX_BODY = 6 << 20
MAX_RECORDS = 10_000
_INVISIBLE = (
    r"\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u1680\u180e\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u206f\u3000\ud800-\uf8ff\ufeff\ufff0-\uffff"
)
# Printable characters and plain spaces between them; the end is the end, not before a line break.
ID = rf"^(?! )[^{_INVISIBLE}]{{1,128}}(?<! )(?![\s\S])"

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=ID)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
# One line with something in it: it is shown in histories and logs.
_LINE = r"^(?=[\s\S]*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,1000}(?![\s\S])"
Because = Annotated[str, msgspec.Meta(min_length=1, max_length=1000, pattern=_LINE)]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{6,64}(?![\s\S])")]
_Sample = int | float
_Samples = list[_Sample | list[_Sample | list[_Sample]]]
Value = None | bool | int | float | str | _Samples
Record = dict[str, Value]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A body with exactly these fields."""


class Inference(Strict):
    """Records to predict, in the columns of the pipeline file. The entity decides the variant."""

    records: Annotated[list[Record], msgspec.Meta(min_length=1, max_length=MAX_RECORDS)]
    entity_id: Id | None = None
    request_id: Id | None = None


class Outcomes(Strict):
    """What really happened, a value for each record of the request; null: not known yet."""

    request_id: Id
    outcomes: Annotated[
        list[int | float | str | dict[str, int | float] | None],
        msgspec.Meta(min_length=1, max_length=MAX_RECORDS),
    ]


class Reason(Strict):
    """Why a person decides so."""

    because: Because


class Promote(Strict):
    """Why, and which proven model version (the challenger, or the candidate, unless named)."""

    because: Because
    version: Version | None = None


class Traffic(Strict):
    """Why, and the challenger's new share of entities."""

    because: Because
    share: Share


class Approve(Strict):
    """Why, and which model version (the one that waits unless named)."""

    because: Because
    version: Version | None = None


class Prediction(msgspec.Struct):
    """One record's answer; without a label for a number, without probabilities for a repeat."""

    label: str | None
    score: float
    probabilities: dict[str, float] | None


class Predictions(msgspec.Struct):
    """The answer to an inference."""

    request_id: str
    variant: str
    model_version: str
    predictions: list[Prediction]


class Told(msgspec.Struct):
    """What became of each outcome: joined to its prediction, waiting for it, or known before."""

    request_id: str
    joined: int
    waiting: int
    known: int


class Health(msgspec.Struct):
    """That the gateway answers."""

    status: str


class Error(msgspec.Struct):
    """A refusal: its kind, what it is about, why, and what to do next."""

    kind: str
    object: str
    reason: str
    next: str


class Refused(msgspec.Struct):
    """The body of every refusal."""

    error: Error


_Body = TypeVar("_Body")
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}


def decode(kind: type[_Body], body: bytes) -> _Body:
    """A request's body. Raises ``BadObject`` with the place in it that is wrong."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        value: _Body = decoder.decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise BadObject(
            "body", f"is not what is taken here: {_words(error)}", "see /openapi.json"
        ) from None
    _refuse_repeated_keys(value, body)
    return value


def _words(error: Exception) -> str:
    text = str(error) if isinstance(error, msgspec.MsgspecError) else type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def _refuse_repeated_keys(value: Any, body: bytes) -> None:
    """Raise ``BadObject`` when an object of the body has a key twice.

    Every key is followed by a colon. When there are as many colons as keys were read, no key was
    dropped and none of the colons is inside a text; else each object is looked at.
    """
    if body.count(b":") == _keys(value):
        return
    try:
        json.loads(body, object_pairs_hook=_once)
    except RecursionError:
        raise BadObject("body", "nests too deeply", "see /openapi.json") from None


def _keys(value: Any) -> int:
    """How many keys were read; too few when objects lie deeper, and then each is looked at."""
    given = [getattr(value, name) for name in value.__struct_fields__]
    count = sum(item is not None for item in given)
    for item in given:
        if isinstance(item, dict):
            count += len(item)
        elif isinstance(item, list):
            count += sum(len(part) for part in item if isinstance(part, dict))
    return count


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise BadObject("body", f"has the key {key[:80]!r} twice", "send each key once")
        seen.add(key)
