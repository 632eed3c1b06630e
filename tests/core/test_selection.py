"""Selectable inference: the keys of each objective, and the four forms of the answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ml_control.errors import InvalidSpec
from ml_control.serving.deployed import Deployment
from ml_control.serving.invocations import CSV, JSON, JSONLINES, RECORDIO, Output, render
from ml_control.serving.recordio import decode_labels
from ml_control.serving.refused import Refused
from ml_control.serving.selection import select, selected_keys

BINARY = ("predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores")


def one(objective, keys, score, num_class=0):
    """The selected content of one prediction."""
    return select([score], keys, objective, num_class)[0]


@pytest.mark.parametrize(
    ("objective", "score", "want"),
    [
        ("binary:logistic", 0.75, [1, [0, 1], 0.75, [0.25, 0.75], 0.75, [0.25, 0.75]]),
        ("binary:logistic", 0.5, [0, [0, 1], 0.5, [0.5, 0.5], 0.5, [0.5, 0.5]]),
        ("binary:logitraw", -2.0, [0, [0, 1], None, None, -2.0, [3.0, -2.0]]),
        ("binary:hinge", 1.0, [1.0, [0, 1], None, None, 1.0, [0.0, 1.0]]),
        ("multi:softmax", 2.0, [2.0, [0, 1, 2], None, None, 2.0, [-1.0, 2.0]]),
        (
            "multi:softprob",
            [0.25, 0.5, 0.25],
            [1, [0, 1, 2], 0.5, [0.25, 0.5, 0.25], 0.5, [0.25, 0.5, 0.25]],
        ),
        ("reg:squarederror", 3.0, [None] * 6),
    ],
)
def test_each_objective_answers_its_own_keys(objective, score, want):
    """What the container derives, as it derives it; a key that does not apply is NaN."""
    found = one(objective, BINARY, score, num_class=3)

    assert list(found) == list(BINARY)
    for key, value in zip(BINARY, want, strict=True):
        assert math.isnan(found[key]) if value is None else value == found[key]


def test_a_regression_answers_its_score_and_unknown_keys_are_nan():
    """predicted_score is the prediction; a key that nobody knows is NaN, as in the container."""
    found = one("reg:logistic", ("predicted_score", "foo"), 0.5)

    assert found["predicted_score"] == 0.5
    assert math.isnan(found["foo"])


def test_an_objective_without_keys_is_refused():
    """Ranking and the like are 500 with the objectives that would do."""
    with pytest.raises(Refused, match="does not know the objective 'rank:pairwise'") as caught:
        one("rank:pairwise", ("predicted_score",), 0.5)

    assert caught.value.status == 500


def test_a_setting_is_read_as_the_container_reads_it():
    """Spaces and case do not matter, the order does."""
    assert selected_keys("Probability, predicted_label") == ("probability", "predicted_label")


def test_the_four_forms_hold_the_same():
    """CSV, JSON, JSON lines and RecordIO-protobuf of the same two predictions."""
    output = Output(("predicted_label", "probabilities"), "binary:logistic")
    predictions = np.array([0.75, 0.25], np.float32)

    csv, js, lines, records = (
        render(predictions, kind, output)[2] for kind in (CSV, JSON, JSONLINES, RECORDIO)
    )

    want = [
        {"predicted_label": 1, "probabilities": [0.25, 0.75]},
        {"predicted_label": 0, "probabilities": [0.75, 0.25]},
    ]
    assert csv == b'1,"[0.25, 0.75]"\n0,"[0.75, 0.25]"\n'
    assert want == json.loads(js)["predictions"]
    assert want == [json.loads(line) for line in lines.splitlines()]
    assert decode_labels(records) == [
        {"predicted_label": [1.0], "probabilities": [0.25, 0.75]},
        {"predicted_label": [0.0], "probabilities": [0.75, 0.25]},
    ]


def deployment(environment):
    """A deployment with these variables."""
    return Deployment("a", "v1", "3.2-0", "0" * 64, "i", environment)


@pytest.mark.parametrize(
    ("environment", "limit", "keys"),
    [
        ({}, 6_291_456, ()),
        ({"MAX_CONTENT_LENGTH": "100"}, 100, ()),
        ({"MAX_CONTENT_LENGTH": "99999999"}, 20 << 20, ()),
        ({"SAGEMAKER_INFERENCE_OUTPUT": "labels"}, 6_291_456, ("labels",)),
    ],
)
def test_a_deployment_says_what_its_variables_mean(environment, limit, keys):
    """Defaults and the upper bound are the container's."""
    found = deployment(environment)

    assert (limit, keys) == (found.max_content_length, found.selected)


@pytest.mark.parametrize(
    "environment",
    [{"LD_PRELOAD": "x"}, {"MAX_CONTENT_LENGTH": "-1"}, {"MAX_CONTENT_LENGTH": "6 MB"}],
)
def test_other_variables_and_values_are_refused(environment):
    """A variable that would change nothing is not taken as if it did."""
    with pytest.raises(InvalidSpec, match="environment"):
        deployment(environment)
