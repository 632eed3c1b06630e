"""Many records at once become the numbers, and the refusals, that they become one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.batch import encode_records
from ml_control.core.features import FeatureSpec
from ml_control.core.kinds import CategoryFeature, ImageFeature, NumberFeature
from ml_control.errors import BadObject, PlatformFailed
from ml_control.gateway.codec import MANY, BatchCodec
from ml_control.serving.handlers.rows import RECORDS

NAMES = ("a", "b", "c")
NUMBERS = [
    NumberFeature(name="a", min=-3, max=1e6),
    NumberFeature(name="b"),
    NumberFeature(name="c", max=0),
]
MIXED = [
    NUMBERS[0],
    CategoryFeature(name="b", levels=("x", "y", "1"), encoding="onehot"),
    CategoryFeature(name="c", levels=tuple(f"l{i}" for i in range(40)), encoding="ordinal"),
]
PLAIN = st.one_of(st.floats(-10, 10, width=32), st.integers(-5, 5), st.floats(width=64))
ODD = st.one_of(
    PLAIN,
    st.none(),
    st.booleans(),
    st.sampled_from(["", "?", " 1.5 ", "x", " y", "l7", "1", "nan", "1e999", "n/k"]),
    st.integers(-(10**400), 10**400),
    st.lists(st.integers(0, 3), max_size=2),
)


def spec(features: list[Any], task: str = "binary") -> FeatureSpec:
    """An encoding of these features."""
    labels = {"binary": ("no", "yes"), "multiclass": ("p", "q", "r"), "regression": ()}[task]
    return FeatureSpec(
        task=task, labels=labels, features=tuple(features), missing=("", "?"), ignore=("id",)
    )


def outcome(call: Any) -> Any:
    """What a call gives, bit for bit, or what it is refused with."""
    try:
        found = call()
    except BadObject as error:
        return error.to_dict()
    return found if isinstance(found, bytes) else np.asarray(found, np.float32).tobytes()


@pytest.mark.parametrize("features", [NUMBERS, MIXED, NUMBERS[:1], MIXED[1:2]])
@settings(max_examples=70, deadline=None)
@given(data=st.data())
def test_many_records_are_encoded_as_one_by_one(features: list[Any], data: st.DataObject) -> None:
    """The matrix has the same bits; a record that does not fit is named in the same words."""
    known = spec(features)
    names = [feature.name for feature in features]
    value = data.draw(st.sampled_from([PLAIN, ODD]))
    whole = st.fixed_dictionaries(dict.fromkeys(names, value))
    some = st.dictionaries(st.sampled_from([*names, "id", "else"]), value)
    records = data.draw(st.lists(st.one_of(whole, whole, whole, some), min_size=1, max_size=6))

    def one_by_one() -> list[list[float]]:
        rows = []
        for place, record in enumerate(records, 1):
            try:
                rows.append(known.encode_record(record))
            except BadObject as error:
                detail = {**error.detail, "row": place}
                raise BadObject(f"record {place}", error.reason, error.next, **detail) from None
        return rows

    assert outcome(one_by_one) == outcome(lambda: encode_records(known, records))


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(NAMES, ODD)))
def test_the_short_way_for_numbers_is_the_long_way(record: dict[str, Any]) -> None:
    """A record of numbers has, all at once, what each feature gives for itself."""
    known = spec(NUMBERS)

    def cell_by_cell() -> list[float]:
        cells: list[float] = []
        for feature in NUMBERS:
            try:
                cells += feature.cells(record[feature.name], frozenset(known.missing))
            except ValueError as error:
                said = f"{feature.name}: {error}"
                raise BadObject("record", said, column=feature.name) from None
        return cells

    assert outcome(cell_by_cell) == outcome(lambda: known.encode_record(record))


def test_images_are_encoded_one_by_one() -> None:
    """Pixels of a batch are those of each image."""
    known = spec([ImageFeature(height=2, width=2)], "multiclass")
    records = [{"pixels": [i, 1, 2, 3]} for i in range(20)]

    assert [known.encode_record(one) for one in records] == encode_records(known, records).tolist()


@pytest.mark.parametrize("features", [NUMBERS, MIXED, NUMBERS[:1]])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_read_back_as_the_same_numbers(features: list[Any], data: st.DataObject) -> None:
    """Both codecs write text that a float32 parser reads back bit for bit."""
    known = spec(features)
    whole = st.fixed_dictionaries(
        {f.name: st.one_of(PLAIN.filter(math.isfinite), st.none()) if f.kind == "number"
         else st.sampled_from(["x", "l3", None]) for f in features}
    )  # fmt: skip
    records = data.draw(st.lists(whole, min_size=MANY, max_size=MANY + 4))
    wanted = encode_records(known, records)

    for codec in (RECORDS, BatchCodec()):
        lines = codec.encode(known, records).decode().split("\n")
        read = [[float(cell or "nan") for cell in line.split(",")] for line in lines]

        assert wanted.tobytes() == np.array(read, np.float32).tobytes()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@given(data=st.data())
def test_answers_are_read_alike(task: str, data: st.DataObject) -> None:
    """Labels, scores and probabilities are the same by either codec."""
    known = spec(NUMBERS, task)
    width = 3 if task == "multiclass" else 1
    scores = st.lists(st.floats(0, 1, width=32), min_size=width, max_size=width)
    rows = data.draw(st.lists(scores, min_size=MANY, max_size=MANY))
    body = "\n".join(",".join(map(repr, row)) for row in rows).encode() + b"\n"

    assert RECORDS.decode(known, MANY, body) == BatchCodec().decode(known, MANY, body)


@pytest.mark.parametrize("line", [b"nan", b"inf", b"", b"x", b"0.1,0.2", b"[1]", b'"1"', b"true"])
def test_what_is_no_prediction_is_refused(line: bytes) -> None:
    """One line that is no number is the model's failure, in few rows and in many."""
    known = spec(NUMBERS)
    for rows, codec in ((2, RECORDS), (MANY, BatchCodec())):
        body = b"0.5\n" * (rows - 1) + line + b"\n"

        with pytest.raises(PlatformFailed):
            codec.decode(known, rows, body)
