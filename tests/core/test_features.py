"""The encoding: one rule for tables and records, and for text and numbers."""

import base64
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core import features
from ml_control.core.features import CategoryFeature, FeatureSpec, ImageFeature, NumberFeature
from ml_control.core.images import encode_png
from ml_control.core.profile import profile
from ml_control.core.tabular import read_csv, records_to_frame
from ml_control.errors import BadObject, PlatformFailed
from ml_control.spec import PipelineSpec

NAN = float("nan")
CITIES = ("Bonn", "Oslo", "Rome")
SHOPS = tuple(f"s{place}" for place in range(40))
ENCODING = FeatureSpec(
    task="binary",
    labels=("no", "yes"),
    features=(
        NumberFeature(name="age", min=0, max=120),
        CategoryFeature(name="city", levels=CITIES, encoding="onehot"),
        NumberFeature(name="income"),
        CategoryFeature(name="shop", levels=SHOPS, encoding="ordinal"),
    ),
    missing=("", "NA"),
    ignore=("bought",),
)
PIPELINE = PipelineSpec.model_validate(
    {
        "name": "shop",
        "source": {"format": "csv", "partition": {"start": "2026-01-01"}, "missing": ["", "NA"]},
        "columns": {
            "target": "bought",
            "task": "binary",
            "positive": "yes",
            "features": [
                {"name": "age", "type": "number", "min": 0, "max": 120},
                {"name": "city", "type": "category"},
                {"name": "income", "type": "number"},
                {"name": "shop", "type": "category"},
            ],
        },
    }
)


def encoded(**record) -> list[float]:
    return ENCODING.encode_record(record)


def test_each_value_is_encoded_as_the_table_in_the_docstring_says():
    """Missing, out-of-range, unseen and known values have their documented numbers."""
    known = encoded(age=30, city="Oslo", income="2.5", shop="s3")
    unseen = encoded(age=30, city="Lima", income=1, shop="t")
    absent = encoded(age=None, city="NA")
    outside = encoded(age=999, city="Rome", income=1e300, shop=" s0 ")

    np.testing.assert_equal([30, 0, 1, 0, 2.5, 3], known)
    np.testing.assert_equal([30, 0, 0, 0, 1, NAN], unseen)
    np.testing.assert_equal([NAN] * 6, absent)
    np.testing.assert_equal([NAN, 0, 0, 1, NAN, 0], outside)


def test_columns_name_the_matrix():
    """There is one name for each matrix column."""
    assert ("age", "city=Bonn", "city=Oslo", "city=Rome", "income", "shop") == ENCODING.columns
    assert 6 == ENCODING.width


NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-200, 200)
RECORD = st.fixed_dictionaries(
    {},
    optional={
        "age": NUMBER | st.sampled_from(["", " 12 ", "NA", "1e2", "-0"]),
        "city": st.none() | st.sampled_from([*CITIES, " Rome", "NA", "?", "bonn"]) | st.integers(),
        "income": NUMBER,
        "shop": st.none() | st.sampled_from(SHOPS) | st.text(max_size=2),
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORD, min_size=1, max_size=4))
def test_records_and_tables_are_encoded_alike(records: list[dict]):
    """Serving one record gives exactly the row that training would have read."""
    matrix = ENCODING.encode_frame(records_to_frame(records, PIPELINE))

    alone = np.array([ENCODING.encode_record(record) for record in records])
    np.testing.assert_array_equal(matrix.astype(np.float64), alone)


@pytest.mark.parametrize(
    ("record", "column"),
    [({"age": "x"}, "age"), ({"city": 1.5}, "city"), ({"Age": 1}, "Age"), ({"age": []}, "age")],
)
def test_a_wrong_record_is_refused_by_column(record: dict, column: str):
    """A value of the wrong type or an unknown key is refused, naming the column."""
    with pytest.raises(BadObject) as refused:
        ENCODING.encode_record(record)

    assert column == refused.value.detail["column"]


def test_the_target_and_ignored_keys_may_be_sent():
    """A record that still has its outcome is encoded without it."""
    np.testing.assert_equal(encoded(age=3), encoded(age=3, bought="yes"))


FLOAT32 = st.floats(width=32, allow_infinity=False)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(FLOAT32, min_size=3, max_size=3), min_size=1, max_size=5))
def test_csv_reads_back_as_the_same_float32(rows: list[list[float]]):
    """Both writers' texts read back as exactly the float32 values; NaN is an empty cell."""
    matrix = np.array(rows, dtype=np.float32)

    def read(text: str) -> np.ndarray:
        cells = [line.split(",") for line in text.splitlines()]
        return np.array([[NAN if c == "" else c for c in row] for row in cells], dtype=np.float32)

    lines = b"".join(features.csv_lines(matrix)).decode()
    np.testing.assert_array_equal(matrix, read(lines))
    np.testing.assert_array_equal(matrix, read("\n".join(map(features.csv_row, rows))))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (-3.0, "-3"),
        (1 / 3, "0.33333334"),
        (1e30, "1e+30"),
        (0.7, "0.7"),
        (255.0, "255"),
        (123456.79, "123456.79"),
    ],
)
def test_csv_text_is_the_shortest(value: float, text: str):
    """A float32 is written with the fewest digits that read back as it."""
    assert text == features.csv_row([float(np.float32(value))])


def test_a_lone_missing_cell_is_no_blank_line():
    """In a matrix of one column NaN is written out: containers skip or refuse blank lines."""
    matrix = np.array([[NAN], [1]], dtype=np.float32)

    assert b"nan\n1\n" == b"".join(features.csv_lines(matrix))
    assert "nan" == features.csv_row([NAN])


def test_large_matrices_come_in_whole_lines():
    """A matrix beyond one chunk is written in several, with every row once."""
    matrix = np.arange(2_400_000, dtype=np.float32).reshape(-1, 2)

    chunks = list(features.csv_lines(matrix))

    assert len(chunks) > 1
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert 1_200_000 == sum(chunk.count(b"\n") for chunk in chunks)
    assert b"2399998,2399999\n" == chunks[-1][-16:]


def test_targets_become_codes():
    """Labels become their place; a regression target its value."""
    plain = FeatureSpec(task="regression", features=(NumberFeature(name="age"),))

    assert [1.0, 0.0] == ENCODING.encode_target(pl.Series("bought", ["yes", "no"])).tolist()
    assert [2.5] == plain.encode_target(pl.Series("price", [2.5])).tolist()


@pytest.mark.parametrize("label", ["maybe", None])
def test_an_unknown_label_is_refused_by_row(label: str | None):
    """A label that the model does not know is refused with its row."""
    with pytest.raises(BadObject, match="not one of the labels no, yes") as refused:
        ENCODING.encode_target(pl.Series("bought", ["yes", label]))

    assert 2 == refused.value.detail["row"]


def test_predictions_are_decoded():
    """Scores, labels and probabilities follow from the model's numbers."""
    multi = ENCODING.model_copy(update={"task": "multiclass", "labels": ("a", "b", "c")})
    plain = FeatureSpec(task="regression", features=(NumberFeature(name="age"),))

    assert {"label": "yes", "score": 0.75, "probabilities": {"no": 0.25, "yes": 0.75}} == (
        ENCODING.decode([0.75])
    )
    assert "no" == ENCODING.decode([0.25])["label"]
    assert {"label": "b", "score": 0.5, "probabilities": {"a": 0.25, "b": 0.5, "c": 0.25}} == (
        multi.decode([0.25, 0.5, 0.25])
    )
    assert {"label": None, "score": 7.5, "probabilities": None} == plain.decode([7.5])


@pytest.mark.parametrize("prediction", [[], [0.5, 0.5], [NAN], [float("inf")]])
def test_a_wrong_answer_is_never_decoded(prediction: list[float]):
    """Too few, too many or non-finite numbers are the platform's failure, not a label."""
    with pytest.raises(PlatformFailed, match="1 finite numbers"):
        ENCODING.decode(prediction)


PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
IMAGE = FeatureSpec(
    task="multiclass",
    labels=("cat", "dog"),
    features=(ImageFeature(height=2, width=2, mode="colour"),),
)


def test_every_way_to_send_an_image_is_the_same():
    """Base64 PNG, flat or nested pixels and both table forms give the same numbers."""
    flat = PIXELS.ravel().tolist()
    image = base64.b64encode(encode_png(PIXELS)).decode()

    assert flat == IMAGE.encode_record({"image": image})
    assert flat == IMAGE.encode_record({"pixels": flat})
    assert flat == IMAGE.encode_record({"pixels": PIXELS.tolist()})
    assert [flat] == IMAGE.encode_frame(pl.DataFrame({"pixels": [PIXELS.tobytes()]})).tolist()
    assert [flat] == IMAGE.encode_frame(pl.DataFrame({"pixels": [flat]})).tolist()
    array = pl.Series("pixels", [flat, flat], dtype=pl.Array(pl.UInt8, 12))
    assert [flat, flat] == IMAGE.encode_frame(array.to_frame()).tolist()


@pytest.mark.parametrize(
    "pixels",
    [
        pl.Series("pixels", [bytes(12), bytes(11)]),
        pl.Series("pixels", [[0] * 12, [0] * 13]),
        pl.Series("pixels", [[0] * 12, None], dtype=pl.Array(pl.UInt8, 12)),
        pl.Series("pixels", [bytes(12), None]),
    ],
)
def test_a_table_row_that_is_no_image_is_refused(pixels: pl.Series):
    """A missing image, or one of another size, is refused with its row."""
    with pytest.raises(BadObject, match="row 2 has no image of 12 samples"):
        IMAGE.encode_frame(pixels.to_frame())


def test_a_table_of_other_images_is_refused():
    """A table whose images all have another size is refused at its first row."""
    other = pl.Series("pixels", [[0] * 4], dtype=pl.Array(pl.UInt8, 4))

    with pytest.raises(BadObject, match="row 1 has no image"):
        IMAGE.encode_frame(other.to_frame())


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "not nothing"),
        ({"pixels": [1, 2]}, "has 2 samples"),
        ({"pixels": [256] * 12}, "not a pixel"),
        ({"pixels": [True] * 12}, "not a pixel"),
        ({"pixels": [[[[0] * 12]]]}, "not a pixel"),
        ({"image": "%%%"}, "not base64"),
        ({"image": 5}, "not base64"),
        ({"image": "aGVsbG8="}, "neither PNG nor JPEG"),
    ],
)
def test_a_wrong_image_record_is_refused(record: dict, reason: str):
    """A record that is no image of the shape is refused with the reason."""
    with pytest.raises(BadObject, match=reason):
        IMAGE.encode_record(record)


def fitted(body: str, **columns) -> FeatureSpec:
    spec = PIPELINE.model_copy(update={"columns": PIPELINE.columns.model_copy(update=columns)})
    return features.fit(spec, profile(read_csv(body.encode(), spec, "x"), spec))


def test_fit_takes_levels_and_labels_from_the_data():
    """Few levels become one-hot by name, many become ranks by frequency; positive is second."""
    rows = [
        f"3,{city},1,{shop},{bought}"
        for city, shop, bought in zip(
            ["Rome", "Bonn"] * 20, [*SHOPS[1:], "s39"], ["yes", "no"] * 20, strict=True
        )
    ]

    spec = fitted("\n".join(["age,city,income,shop,bought", *rows]))

    assert ("no", "yes") == spec.labels
    assert ("onehot", ("Bonn", "Rome")) == (spec.features[1].encoding, spec.features[1].levels)
    assert ("ordinal", "s39", 39) == (
        spec.features[3].encoding,
        spec.features[3].levels[0],
        len(spec.features[3].levels),
    )
    assert (0.0, 120.0) == (spec.features[0].min, spec.features[0].max)


def test_a_category_without_values_keeps_a_column():
    """A column that was always missing is still there, as NaN."""
    spec = fitted("age,city,income,shop,bought\n1,,2,s,yes\n1,,2,s,no\n")

    assert ("age", "city", "income", "shop=s") == spec.columns
    np.testing.assert_equal([NAN, NAN, NAN, 0], spec.encode_record({"city": "Rome", "shop": "x"}))


@pytest.mark.parametrize("labels", [["no", "no"], ["yes", "no", "perhaps"], ["ja", "nein"]])
def test_labels_that_do_not_fit_the_task_are_refused(labels: list[str]):
    """Binary needs exactly two labels, one of them the declared positive."""
    body = "\n".join(["age,city,income,shop,bought", *(f"1,a,2,s,{label}" for label in labels)])

    with pytest.raises(BadObject, match="exactly two labels, one of them 'yes'"):
        fitted(body)


def test_the_encoding_survives_its_file():
    """Written to features.json and read again, it is the same encoding with the same digest."""
    for spec in (ENCODING, IMAGE):
        again = FeatureSpec.model_validate(json.loads(json.dumps(spec.to_json())))

        assert spec == again
        assert spec.digest == again.digest
    assert ENCODING.digest != IMAGE.digest
