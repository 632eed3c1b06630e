"""What a training job refuses before it trains: hyperparameters and channel files."""

from __future__ import annotations

import numpy as np
import pytest

from ml_control.local.hyperparameters import REFUSED, Refused, parse
from ml_control.local.matrices import Unusable, read_channel

SETTINGS = {
    "num_round": "40",
    "objective": "binary:logistic",
    "eval_metric": "auc,logloss",
    "early_stopping_rounds": "4",
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_round": None}, "Missing required hyperparameter: num_round"),
        ({"foo": "1"}, "Extraneous hyperparameter found: foo"),
        ({"n_estimators": "10"}, "Extraneous hyperparameter found: n_estimators"),
        ({"device": "cuda"}, "Extraneous hyperparameter found: device"),
        ({"eta": "3.0"}, "Hyperparameter eta: 3.0 is not in [0, 1]"),
        ({"eta": "nan"}, "Hyperparameter eta: nan is not in [0, 1]"),
        ({"subsample": "0"}, "Hyperparameter subsample: 0.0 is not in (0, 1]"),
        ({"max_depth": "deep"}, "Hyperparameter max_depth: could not parse value 'deep' as int"),
        ({"eval_metric": "f2"}, "Hyperparameter eval_metric: f2 is not in ["),
        ({"tree_method": "gpu_hist"}, "Hyperparameter tree_method: gpu_hist is not in ["),
        ({"csv_weights": "2"}, "Hyperparameter csv_weights: 2 is not in [0, 1]"),
        ({"booster": "gblinear"}, "Hyperparameter early_stopping_rounds: not supported"),
        ({"num_class": "3"}, "Do not need to setup parameter 'num_class'"),
        (
            {"objective": "multi:softprob"},
            "Require input for parameter 'num_class' for multi-classification",
        ),
    ],
)
def test_hyperparameters_are_refused_in_the_containers_words(changes, words):
    """What the container would refuse is refused as it would say it, recognisably."""
    settings = {key: text for key, text in {**SETTINGS, **changes}.items() if text is not None}

    with pytest.raises(Refused) as caught:
        parse(settings)

    assert str(caught.value).startswith(words)
    assert REFUSED.match(str(caught.value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,a,b\n1,2,3\n", "channel train: 0.csv: begins with a header ('label')"),
        ("1,2,3\n0,2\n", "channel train: 0.csv: "),
        ("1,2,3\n0,2,three\n", "three"),
        ("1,2,3\n0,2,inf\n", "row 2 has an infinite value"),
        ("1,2,3\n,2,3\n", "row 2 has no finite label"),
        ("", "no row of data"),
        ("1\n0\n", "at least one feature"),
    ],
)
def test_no_row_is_read_wrongly(tmp_path, text, words):
    """What cannot be read as labels and features is refused with its file or row."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.csv").write_text(text)

    with pytest.raises(Unusable) as caught:
        read_channel(tmp_path / "train", tmp_path / "scratch")

    assert words in str(caught.value)


def test_a_channel_is_read_in_order_without_its_line_ends(tmp_path):
    """Files by name, any line end, no last line end, empty cells as NaN."""
    (tmp_path / "0.csv").write_bytes(b"1,2,\r\n0,nan,4\r\n")
    (tmp_path / "1.csv").write_bytes(b"1,,6")

    rows = read_channel(tmp_path, tmp_path / "scratch")

    nan = float("nan")
    (block,) = rows.blocks()
    np.testing.assert_array_equal([1, 0, 1], block["label"])
    np.testing.assert_array_equal([[2, nan], [nan, 4], [nan, 6]], block["data"])
    assert 3 == sum(len(part["label"]) for part in rows.blocks(size=1))
