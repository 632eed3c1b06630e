"""The container's contract over real HTTP, where the tables of the units do not reach."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xgboost
from serving import CSV, GOOD, POST, RECORDS, Served, deployment

from ml_control.serving.recordio import decode_labels, encode_recordio

ROWS = np.array([[0.5, -1.25, np.nan], [1e-3, 2, 7]], dtype=np.float32)


@pytest.fixture(scope="module")
def selecting(tmp_path_factory, booster):
    """A server with selected keys and a small limit, as its deployment says."""
    environment = {
        "SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probability,predicted_score",
        "MAX_CONTENT_LENGTH": "100",
    }
    folder = deployment(tmp_path_factory.mktemp("selecting"), booster, environment=environment)
    served = Served(folder, booster)
    yield served
    served.process.kill()
    served.process.wait()
    served.log.close()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (CSV, GOOD),
        ({"content-type": "text/csv; label_size=1"}, GOOD.replace(b",", b";")),
        ({"content-type": "text/libsvm"}, b"1 0:0.5 1:-1.25\n0 0:1e-3 1:2 2:7\n"),
        ({"content-type": "text/x-libsvm"}, b"0:0.5 1:-1.25\r\n2:7 0:1e-3 1:2"),
        ({}, b"1 0:0.5 1:-1.25\n0 0:1e-3 1:2 2:7\n"),
        (RECORDS, encode_recordio(({"values": row} for row in ROWS), "features")),
    ],
)
def test_every_content_type_has_the_same_predictions(served, headers, body):
    """The same rows in each form are predicted as the booster predicts them."""
    status, answered, text = served.ask(*POST, headers, body)

    want = served.booster.predict(xgboost.DMatrix(ROWS))
    assert status == 200
    assert answered["content-type"] == "text/csv; charset=utf-8"
    assert want.tobytes() == np.array(text.split(), dtype=np.float32).tobytes()


def test_selected_keys_are_answered_in_every_form(selecting):
    """What the deployment's environment selects, in CSV, JSON, JSON lines and records."""
    score = selecting.booster.predict(xgboost.DMatrix(ROWS)).tolist()
    answers = {
        kind: selecting.ask(*POST, {**CSV, "accept": kind}, GOOD)[::2]
        for kind in ("text/csv", "application/json", "application/jsonlines", RECORDS_KIND)
    }

    assert {200} == {status for status, _ in answers.values()}
    first = json.loads(answers["application/json"][1])["predictions"][0]
    assert (int(score[0] > 0.5), score[0]) == (first["predicted_label"], first["probability"])
    assert np.isnan(first["predicted_score"])
    assert answers["text/csv"][1].startswith(f"{int(score[0] > 0.5)},{score[0]!r},nan\n".encode())
    lines = answers["application/jsonlines"][1].splitlines()
    assert score == [json.loads(line)["probability"] for line in lines]
    assert [[s] for s in score] == [
        r["probability"] for r in decode_labels(answers[RECORDS_KIND][1])
    ]


RECORDS_KIND = RECORDS["content-type"]


def test_the_limit_of_a_body_is_the_deployments(selecting):
    """MAX_CONTENT_LENGTH of the deployment is kept, and told."""
    status, _, text = selecting.ask(*POST, CSV, b"1,2,3\n" * 20)

    assert status == 413
    assert b"larger than 100 bytes; send fewer rows" in text


def test_a_shell_cannot_change_what_is_answered(tmp_path, booster, monkeypatch):
    """The process's own environment selects nothing: answers are those that were proven."""
    monkeypatch.setenv("SAGEMAKER_INFERENCE_OUTPUT", "predicted_label")
    monkeypatch.setenv("MAX_CONTENT_LENGTH", "1")
    served = Served(deployment(tmp_path, booster), booster)
    try:
        served.check()
    finally:
        served.process.kill()
        served.process.wait()
        served.log.close()
