"""A model of XGBoost 3.2 is proven for its own container and refused, measured, for others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ml_control.core.artifact import pack
from ml_control.errors import InvalidSpec, NotProven
from ml_control.services.models.verify import raise_if_refused, verify


def csv_line(row) -> str:
    """A row as the container reads it: an empty cell is missing."""
    return ",".join("" if np.isnan(value) else repr(float(value)) for value in row)


def golden_of(rows, predictions) -> bytes:
    """A golden.json as the trainer writes it, with a key that verify does not know."""
    lines = np.asarray(predictions, dtype=np.float64).reshape(len(rows), -1).tolist()
    content = {"format": 1, "rows": [csv_line(row) for row in rows], "predictions": lines}
    return json.dumps({**content, "records": "ignored"}).encode()


@pytest.fixture(scope="module")
def trained():
    """An unbalanced binary model with the golden rows that its own process predicted."""
    import xgboost

    random = np.random.default_rng(11)
    rows = random.normal(size=(400, 4)).astype(np.float32)
    labels = (rows[:, 0] + random.normal(size=400) > 1.5).astype(int)
    rows[random.random(rows.shape) < 0.1] = np.nan
    parameters = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, labels), 10)
    chosen = np.vstack([rows[:50], np.full((1, 4), np.nan), np.full((1, 4), 3e38)])
    chosen = chosen.astype(np.float32)
    golden = golden_of(chosen, booster.predict(xgboost.DMatrix(chosen)))
    return bytes(booster.save_raw("ubj")), golden


def test_its_own_container_answers_its_golden_rows(trained):
    """The archive passes, and every golden row is answered exactly as in training."""
    model, golden = trained

    report = verify(pack(model), "3.2-0", golden)

    assert report.findings == []
    assert report.passed
    assert (report.golden["rows"], report.golden["mismatched_rows"]) == (52, 0)
    assert report.golden["max_abs_difference"] == 0.0
    raise_if_refused(report)


def test_without_golden_rows_it_must_load_and_answer(trained):
    """No golden rows: a proof that it loads and answers, and no comparison is claimed."""
    report = verify(pack(trained[0]), "3.2-0")

    assert (report.passed, report.golden) == (True, None)


def test_an_older_container_is_refused_with_the_measured_difference(trained):
    """1.7-1 would answer 200 and wrongly: the refusal says by how much, and where first."""
    model, golden = trained

    report = verify(pack(model), "1.7-1", golden)

    assert [finding.rule for finding in report.findings] == ["version", "golden_differs"]
    assert report.golden["mismatched_rows"] > 40
    assert report.golden["max_abs_difference"] > 0.01
    measured = f"by up to {report.golden['max_abs_difference']:.6g}"
    assert all(measured in finding.reason for finding in report.findings)
    with pytest.raises(NotProven, match="status 200") as caught:
        raise_if_refused(report)
    assert len(caught.value.to_dict()["findings"]) == 2
    assert json.loads(json.dumps(report.to_dict()))["passed"] is False


def test_without_golden_rows_the_saver_is_the_witness(trained):
    """The XGBoost that saved the model answers the probes too, so the error is still measured."""
    report = verify(pack(trained[0]), "1.7-1")

    assert [finding.rule for finding in report.findings] == ["version"]
    assert "XGBoost 3.2.0, which saved it by up to" in report.findings[0].reason


def test_a_container_that_cannot_load_it_says_so_in_its_own_words(trained):
    """1.5-1 does not load the format at all: the loader's words are in a finding."""
    report = verify(pack(trained[0]), "1.5-1")

    assert [finding.rule for finding in report.findings] == ["version", "does_not_answer"]
    assert "Expecting" in report.findings[1].reason


def test_golden_rows_of_another_model_are_refused(trained):
    """Same container, other predictions: the first differing row is named with both values."""
    model, golden = trained
    content = json.loads(golden)
    content["predictions"][7] = [content["predictions"][7][0] + 0.25]

    report = verify(pack(model), "3.2-0", json.dumps(content).encode())

    assert [finding.rule for finding in report.findings] == ["golden_differs"]
    assert report.golden["first_mismatch"]["row"] == 7
    assert report.golden["max_abs_difference"] == pytest.approx(0.25)
    assert "1 of 52 rows" in report.findings[0].reason


def test_golden_rows_of_another_width_are_refused(trained):
    """Rows with fewer columns would be answered without a word; here they are a finding."""
    golden = golden_of(np.zeros((3, 2)), [0.1, 0.2, 0.3])

    report = verify(pack(trained[0]), "3.2-0", golden)

    assert [finding.rule for finding in report.findings] == ["golden_columns"]


def test_a_model_that_lies_about_its_saver_is_caught_by_replay(trained):
    """Relabelled as 1.7.4 it passes every static rule; only its predictions betray it."""
    import xgboost

    model, golden = trained
    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    text = bytes(booster.save_raw("json")).replace(b'"version":[3,2,0]', b'"version":[1,7,4]')

    report = verify(pack(text), "1.7-1", golden)

    assert [finding.rule for finding in report.findings] == ["golden_differs"]


@pytest.mark.parametrize(
    ("golden", "word"),
    [
        (b"{", "not JSON"),
        (b"[]", "format"),
        (b'{"format": 2}', "format"),
        (b'{"format": 1, "rows": [], "predictions": []}', "at least one row"),
        (b'{"format": 1, "rows": ["1"], "predictions": []}', "1 rows and 0 predictions"),
        (b'{"format": 1, "rows": ["1,x"], "predictions": [[1]]}', "row 0"),
        (b'{"format": 1, "rows": ["1\\n"], "predictions": [[1]]}', "row 0"),
        (b'{"format": 1, "rows": ["1"], "predictions": [[NaN]]}', "prediction 0"),
        (b'{"format": 1, "rows": ["1"], "predictions": [[true]]}', "prediction 0"),
        (b'{"format": 1, "rows": ["1", "1,2"], "predictions": [[1], [1]]}', "different lengths"),
    ],
)
def test_a_malformed_golden_file_is_refused_before_any_work(golden, word):
    """What is wrong with the golden file is said, and the archive is not even opened."""
    with pytest.raises(InvalidSpec, match=word) as caught:
        verify(b"not an archive", "3.2-0", golden)

    assert caught.value.object == "golden.json"


def test_an_unreadable_archive_is_a_report_not_an_error():
    """Nothing to replay: the report carries the static finding."""
    report = verify(b"not an archive", "3.2-0")

    assert [finding.rule for finding in report.findings] == ["not_gzip"]
    assert report.booster is None


FOUR = [{"kind": "number", "name": name} for name in "abcd"]


def features_of(**changes) -> bytes:
    """A features.json of four numbers."""
    content = {"task": "binary", "labels": ["no", "yes"], "features": FOUR}
    return json.dumps(content | changes).encode()


def with_records(golden: bytes) -> bytes:
    """The golden file with the raw records that its rows were made from."""
    content = json.loads(golden)
    cells = [line.split(",") for line in content["rows"]]
    content["records"] = [
        {name: float(cell) if cell else None for name, cell in zip("abcd", row, strict=True)}
        for row in cells
    ]
    return json.dumps(content).encode()


def encoded(golden: bytes) -> bytes:
    """The same with rows as our own FeatureSpec writes them."""
    from ml_control.core.features import FeatureSpec, csv_row

    spec = FeatureSpec.model_validate_json(features_of())
    content = json.loads(with_records(golden))
    content["rows"] = [csv_row(spec.encode_record(record)) for record in content["records"]]
    return json.dumps(content).encode()


def test_its_own_features_fit(trained):
    """features.json of the model, with and without golden records, is no finding."""
    model, golden = trained

    assert verify(pack(model), "3.2-0", encoded(golden), features=features_of()).passed
    assert verify(pack(model), "3.2-0", features=features_of()).passed


@pytest.mark.parametrize(
    ("changes", "rule", "word"),
    [
        ({"features": FOUR[:3]}, "features_columns", "gives 3 columns, the model takes 4"),
        ({"features": FOUR[::-1]}, "features_differ", "encodes the golden records otherwise"),
        ({"features": [*FOUR[:3], {"kind": "number", "name": "e"}]}, "features_differ", ""),
        ({"features": [{**FOUR[0], "min": 1e9}, *FOUR[1:]]}, "features_differ", "otherwise"),
    ],
    ids=["missing column", "columns in another order", "another column", "another range"],
)
def test_features_of_another_model_are_refused(trained, changes, rule, word):
    """A swapped features.json is named, though the model answers its golden rows."""
    model, golden = trained

    report = verify(pack(model), "3.2-0", encoded(golden), features=features_of(**changes))

    assert [rule] == [finding.rule for finding in report.findings]
    assert "features.json" == report.findings[0].object
    assert word in report.findings[0].reason
    assert report.findings[0].next


def test_a_features_file_that_is_none_is_wrong_usage(trained):
    """What is no features.json at all is said before anything is proven by it."""
    with pytest.raises(InvalidSpec, match="cannot be read"):
        verify(pack(trained[0]), "3.2-0", features=b'{"features": 7}')


def test_the_command_line_tells_a_bare_booster_and_every_finding(trained, tmp_path, make_shell):
    """A booster that was never packed is refused with the command that packs it; a refused
    archive shows each of its findings; of a folder, the archive in it is named.
    """
    shell = make_shell(tmp_path)
    model, golden = trained
    bare, packed, rows = (tmp_path / name for name in ("xgboost-model", "m.tar.gz", "golden.json"))
    bare.write_bytes(model)
    packed.write_bytes(pack(model))
    rows.write_bytes(golden)

    told = shell("verify", bare, "--container", "3.2-0", status=1)
    assert "bare ubj booster of XGBoost 3.2.0" in " ".join((told.stdout + told.stderr).split())
    assert "tar -czf model.tar.gz xgboost-model" in " ".join((told.stdout + told.stderr).split())

    told = shell("verify", packed, "--container", "1.7-1", "--golden", rows, status=1)
    assert all(word in told.stdout + told.stderr for word in ("version", "golden_differs"))

    told = shell("verify", tmp_path, "--container", "3.2-0", status=1)
    assert "is a folder, not an archive" in told.stderr
    assert "m.tar.gz" in told.stderr.partition("next:")[2]
