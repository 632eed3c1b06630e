"""The pure request logic of /invocations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.serving import delimited
from ml_control.serving.delimited import parse_csv
from ml_control.serving.invocations import Output, choose_accept, choose_reader, render
from ml_control.serving.libsvm import parse_libsvm
from ml_control.serving.recordio import parse_recordio
from ml_control.serving.refused import Refused

NAN = float("nan")
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
delimiters = st.sampled_from([",", ";", "\t", "|"])
endings = st.sampled_from(["\n", "\r\n"])


def matrices(cells):
    """Lists of rows of equal length."""
    return st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6
        )
    )


@settings(max_examples=60, deadline=None)
@given(matrices(finite))
def test_rendered_predictions_are_read_back_bit_for_bit(rows):
    """What render writes as CSV, parse_csv reads as the same 32-bit floats."""
    array = np.array(rows, dtype=np.float32)

    status, kind, body = render(array, "text/csv")

    assert status == 200
    assert kind == "text/csv; charset=utf-8"
    assert array.tobytes() == parse_csv(body, array.shape[1]).tobytes()


@settings(max_examples=60, deadline=None)
@given(matrices(finite), st.booleans())
def test_json_scores_are_the_same_floats(rows, flat):
    """Scores in a JSON answer read back as the same 32-bit floats, in one or two dimensions."""
    array = np.array(rows, dtype=np.float32)
    array = array[:, 0] if flat else array

    _, _, body = render(array, "application/json")

    scores = [item["score"] for item in json.loads(body)["predictions"]]
    assert array.tobytes() == np.array(scores, dtype=np.float32).tobytes()


@settings(max_examples=80, deadline=None)
@given(matrices(st.one_of(finite, st.none())), delimiters, endings, st.booleans(), st.booleans())
def test_any_delimiter_ending_and_empty_cell_is_read(rows, delimiter, ending, last, padded):
    """Delimiter, line end, padding and missing cells change nothing about the values."""
    rows = [["nan" if cell is None and len(row) == 1 else cell for cell in row] for row in rows]
    pad = " " if padded else ""
    text = ending.join(
        delimiter.join(pad + ("" if cell is None else str(cell)) for cell in row) for row in rows
    )
    want = np.array(
        [[NAN if cell is None else float(cell) for cell in row] for row in rows], dtype=np.float32
    )

    got = parse_csv((text + ending * last).encode(), len(rows[0]))

    np.testing.assert_array_equal(want, got)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("0123456789,.;eE+-nai\n\r \t_|", max_size=40)))
def test_any_bytes_are_read_or_refused(body):
    """No body makes the parser fail in another way than by a refusal with a known status."""
    body = body.encode() if isinstance(body, str) else body

    try:
        rows = parse_csv(body, 2)
    except Refused as refused:
        assert refused.status in {204, 400, 415}  # noqa: PT017 (either way is an answer)
    else:
        assert (np.float32, 2) == (rows.dtype, rows.shape[1])
        assert not np.isinf(rows).any()


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 204, ""),
        (b"\n", 415, "blank"),
        (b" \r\n ", 415, "blank"),
        (b"age,income\n1,2\n", 415, "'age' is not a number; send rows without a header"),
        (b"id,age,income\n1,2,3\n", 415, "line 1, column 1: 'id' is not a number"),
        (b"1,2\n1,2,3\n", 415, "line 2 has 3 columns and line 1 has 2"),
        (b"1,2\n\n1,2\n", 415, "line 2 is blank"),
        (b"1,2\n \t\n1,2\n", 415, "line 2 is blank"),
        (b"1,2,3\n", 400, "3 columns and the model has 2 features"),
        (b"1\n", 400, "1 columns and the model has 2 features"),
        (b"1,inf\n", 415, "line 1, column 2 is infinite"),
        (b"1,2\n-Infinity,2\n", 415, "line 2, column 1 is infinite"),
        (b"1,1e39\n", 415, "line 1, column 2 is infinite as a 32-bit float"),
        (b"1,1e400\n", 415, "line 1, column 2 is infinite as a 32-bit float"),
        (b"1,1_000\n", 415, "'1_000' is not a number"),
        (b"1,0x10\n", 415, "'0x10' is not a number"),
        (b'1,"2"\n', 415, "is not a number"),
        (b"1,2e\n", 415, "'2e' is not a number"),
        (b"1 2\n", 415, "'1 2' is not a number"),
        ("1,٣\n".encode(), 415, "line 1 has a byte that no number has"),
        (b"1,2\n\x00\x01,2\n", 415, "line 2, column 1"),
        (b"\xff\xfe1,2\n", 415, "line 1 has a byte"),
        (b'{"instances": [[1, 2]]}', 415, "is not a number"),
        (b"1," + b"9" * 5000 + b"x\n", 415, "..."),
    ],
)
def test_a_body_that_is_not_rows_of_the_model_is_refused(body, status, reason):
    """Every unusable body gets its status and a sentence that names the place."""
    with pytest.raises(Refused) as caught:
        parse_csv(body, 2)

    assert status == caught.value.status
    assert reason in caught.value.reason


@pytest.mark.parametrize("body", [b"1\n\n2\n", b"1\n \n2\n", b"1\n 2\n\t\n"])
def test_a_blank_line_is_no_row_of_a_one_column_model(body):
    """One column or many: nobody can tell whether a blank line was meant as a row."""
    with pytest.raises(Refused, match="is blank") as caught:
        parse_csv(body, 1)

    assert caught.value.status == 415


def test_a_byte_order_mark_is_not_data():
    """A file saved by a spreadsheet program reads like any other."""
    np.testing.assert_array_equal([[1.0, 2.0]], parse_csv(b"\xef\xbb\xbf1,2\n", 2))


def test_the_whole_float_range_is_read():
    """Exponents, signs, bare points and the smallest numbers are numbers."""
    body = b"1e-45,+3.,.5,-0\n3.4028235e38,1E2,-1e-400,00012\n"

    want = np.array([[1e-45, 3, 0.5, -0.0], [3.4028235e38, 100, 0, 12]], dtype=np.float32)
    np.testing.assert_array_equal(want, parse_csv(body, 4))


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (None, "text/csv"),
        ("", "text/csv"),
        ("*/*", "text/csv"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("Application/JSON", "application/json"),
        ("text/html, application/json;q=0.5", "application/json"),
        ("text/csv;q=0.2, application/json;q=0.5", "application/json"),
    ],
)
def test_the_answer_has_the_form_asked_for(header, want):
    """CSV unless JSON is what the caller prefers."""
    assert want == choose_accept(header)


@pytest.mark.parametrize("header", ["application/x-npy", "text/html", "text/csv;q=0", ";", "q"])
def test_an_unknown_accept_is_refused(header):
    """A form of answer that this server does not have is 406, and it says which it has."""
    with pytest.raises(Refused, match="ask for text/csv or application/json") as caught:
        render(np.zeros(1, dtype=np.float32), header)

    assert caught.value.status == 406


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(
                st.floats(allow_nan=False, allow_infinity=False).map(repr),
                st.integers(-(10**25), 10**25).map(str),
                st.sampled_from(
                    ["", "nan", "+1", ".5", "1.", "007", " 2 ", "1e400", "[1]", "-0.0"]
                ),
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    ),
    endings,
)
def test_the_fast_way_reads_what_the_careful_way_reads(rows, ending):
    """Where simdjson reads a body at all, it reads the bits that float() reads; and it leaves
    alone what the careful way refuses for its form.
    """
    body = ending.join(",".join(row) for row in rows).encode()
    width = len(rows[0])

    fast = delimited._parse_plain(body, width)

    if fast is not None:
        # -0 as an integer has no sign in JSON; as a feature it is the same number.
        assert (fast + 0.0).tobytes() == (delimited._parse_any(body, width) + 0.0).tobytes()


@pytest.mark.parametrize("body", [b"1,2\n3,4", b"1,2\r\n3,4\r\n", b"1.5e3,-2"])
def test_plain_bodies_take_the_fast_way(body):
    """What most callers send does not fall back to reading cell by cell."""
    assert delimited._parse_plain(body, 2) is not None


@pytest.mark.parametrize("body", [b"1,2\n3", b"1,2,3\n4", b"1\n2,3,4", b"1,[2,3]", b"1,true"])
def test_what_is_no_matrix_of_numbers_does_not_take_the_fast_way(body):
    """Ragged rows with the right number of commas in all, nested arrays and words fall back."""
    assert delimited._parse_plain(body, 2) is None


@pytest.mark.parametrize(
    ("header", "reader"),
    [
        ("text/csv", parse_csv),
        ("TEXT/CSV; charset=UTF-8", parse_csv),
        ("text/csv;label_size=1", parse_csv),
        ("text/libsvm", parse_libsvm),
        ("text/x-libsvm", parse_libsvm),
        (None, parse_libsvm),
        ("application/x-recordio-protobuf", parse_recordio),
    ],
)
def test_the_containers_content_types_are_taken(header, reader):
    """Each type has its reader; without one a body is libsvm, as in the container."""
    assert reader is choose_reader(header)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("application/json", "'application/json' is not supported"),
        ("application/x-parquet", "'application/x-parquet' is not supported"),
        ("csv", "'csv' is not supported"),
        ("text/csv; label_size=0", "label_size=0"),
        ("text/csv; charset=utf-16", "charset 'utf-16'"),
    ],
)
def test_other_content_types_are_refused(header, reason):
    """Everything else is 415 and the sentence says what to send."""
    with pytest.raises(Refused, match="not supported") as caught:
        choose_reader(header)

    assert caught.value.status == 415
    assert reason in caught.value.reason


@pytest.mark.parametrize("kind", ["application/jsonlines", "application/x-recordio-protobuf"])
def test_some_forms_exist_only_with_selected_keys(kind):
    """Without selectable output they are 500, as in the container, unless another form will do."""
    with pytest.raises(Refused, match="only with SAGEMAKER_INFERENCE_OUTPUT") as caught:
        choose_accept(kind)

    assert caught.value.status == 500
    assert choose_accept(f"{kind}, text/csv;q=0.1") == "text/csv"
    assert kind == choose_accept(kind, Output(("labels",), "binary:logistic"))


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_prediction_that_is_no_number_is_an_error(value):
    """A model that answers NaN or infinity is 500: no caller can act on it."""
    with pytest.raises(Refused) as caught:
        render(np.array([0.5, value], dtype=np.float32), "text/csv")

    assert caught.value.status == 500
