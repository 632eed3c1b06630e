"""Replaying in a container's XGBoost: bit for bit its own answers, or its own words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_control.core.containers import container
from ml_control.errors import InvalidSpec, NotProven
from ml_control.services.models.proving import replay
from ml_control.serving.proving import read_rows

NOW = container("3.2-0")


def csv_of(rows: np.ndarray) -> str:
    """Rows as CSV with empty cells for missing values."""
    lines = (",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def model_of(columns: int, classes: int = 0):
    """A small booster, its bytes, and rows with missing values."""
    import xgboost

    random = np.random.default_rng(5)
    rows = random.normal(size=(150, columns)).astype(np.float32)
    labels = random.integers(0, classes or 2, 150)
    rows[random.random(rows.shape) < 0.2] = np.nan
    parameters = {"objective": "multi:softprob", "num_class": classes} if classes else {}
    booster = xgboost.train({**parameters, "nthread": 1}, xgboost.DMatrix(rows, labels), 4)
    return booster, bytes(booster.save_raw("ubj")), rows


cells = st.one_of(st.just(float("nan")), st.floats(width=32, allow_infinity=False))


@settings(max_examples=40, deadline=None)
@given(
    table=st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=9
        )
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_rows_survive_csv_bit_for_bit(tmp_path_factory, table, ending):
    """Any float32 and any pattern of missing cells is read back exactly."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    expected = np.array(table, np.float32)
    path.write_bytes(csv_of(expected).replace("\n", ending).encode())

    actual = np.concatenate(list(read_rows(path)))

    np.testing.assert_array_equal(expected, actual, strict=True)


def test_blocks_do_not_change_the_rows(tmp_path, monkeypatch):
    """A long file is read in blocks; no row is lost, doubled or cut between them."""
    monkeypatch.setattr("ml_control.serving.proving._BLOCK", 100)
    expected = model_of(3)[2]
    path = tmp_path / "rows.csv"
    path.write_text(csv_of(expected))

    blocks = list(read_rows(path))

    assert len(blocks) > 10
    np.testing.assert_array_equal(expected, np.concatenate(blocks), strict=True)


@pytest.mark.parametrize(("columns", "classes"), [(5, 0), (4, 3), (1, 0)])
def test_replay_equals_the_booster_bit_for_bit(tmp_path, columns, classes):
    """Every shape of model is answered as the booster itself answers, several inputs at once."""
    import xgboost

    booster, model, rows = model_of(columns, classes)
    (tmp_path / "rows.csv").write_text(csv_of(rows))
    (tmp_path / "none.csv").write_text("")

    result = replay(model, NOW, {"test": tmp_path / "rows.csv", "none": tmp_path / "none.csv"})

    expected = booster.predict(xgboost.DMatrix(rows))
    np.testing.assert_array_equal(expected, result.predictions["test"], strict=True)
    assert len(result.predictions["none"]) == 0
    assert (result.xgboost, result.num_features) == ("3.2.0", columns)
    assert 0 < result.latency_p50_ms <= result.latency_p99_ms


def test_rows_of_another_width_are_refused(tmp_path):
    """XGBoost would answer short rows silently; the replay names both widths."""
    path = tmp_path / "rows.csv"
    path.write_text("1,2\n")

    with pytest.raises(NotProven, match="input test has 2 columns, the model has 4"):
        replay(model_of(4)[1], NOW, {"test": path})


def test_a_damaged_model_is_refused_in_the_loaders_words():
    """The loader's own sentence reaches the reader, without its stack trace."""
    with pytest.raises(NotProven, match=r"does not load in XGBoost 3\.2\.0") as caught:
        replay(model_of(4)[1][:500], NOW, {})

    assert "Stack trace" not in caught.value.reason


def test_a_replay_that_takes_too_long_is_refused():
    """The time is bounded, and the refusal says by what."""
    with pytest.raises(NotProven, match=r"did not answer within 0\.01 s"):
        replay(model_of(2)[1], NOW, {}, timeout=0.01)


def test_input_names_cannot_leave_the_directory():
    """An input name becomes a file name, so it must be a plain one."""
    with pytest.raises(InvalidSpec, match="not a plain name"):
        replay(b"", NOW, {"../rows": Path("rows.csv")})


def test_nothing_of_our_environment_reaches_the_process(tmp_path, monkeypatch):
    """A secret in our environment, or a module in our search path, is not seen there."""
    (tmp_path / "xgboost.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert replay(model_of(2)[1], NOW, {}).xgboost == "3.2.0"


def test_a_model_of_the_1_7_container_is_served_at_its_best_round(tmp_path):
    """1.7-1 cuts an early-stopped model of its own at the best round, as the container does."""
    import subprocess

    from ml_control.environments import python_for

    program = """
import numpy as np, xgboost, sys
random = np.random.default_rng(3)
rows = random.normal(size=(300, 3)).astype(np.float32)
labels = (rows[:, 0] + random.normal(size=300) > 0).astype(int)
train, held = xgboost.DMatrix(rows[:200], labels[:200]), xgboost.DMatrix(rows[200:], labels[200:])
parameters = {"objective": "binary:logistic", "eta": 1.0, "max_depth": 6, "nthread": 1}
booster = xgboost.train(parameters, train, 60, evals=[(held, "v")], early_stopping_rounds=5,
                        verbose_eval=False)
booster.save_model("model.json")
np.savetxt("rows.csv", rows, delimiter=",")
best = booster.predict(xgboost.DMatrix(rows), iteration_range=(0, booster.best_iteration + 1))
every = booster.predict(xgboost.DMatrix(rows), iteration_range=(0, 0))
np.savez("answers.npz", best=best, every=every)
"""
    target = container("1.7-1")
    subprocess.run([python_for(target), "-c", program], cwd=tmp_path, check=True)
    answers = np.load(io.BytesIO((tmp_path / "answers.npz").read_bytes()))

    result = replay((tmp_path / "model.json").read_bytes(), target, {"rows": tmp_path / "rows.csv"})

    assert not np.array_equal(answers["best"], answers["every"])
    np.testing.assert_array_equal(answers["best"], result.predictions["rows"], strict=True)
