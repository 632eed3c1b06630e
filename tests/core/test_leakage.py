"""Leakage: columns that give the target away are found, honest ones are not."""

import numpy as np
import polars as pl
import pytest

from ml_control.core.leakage import scores, unjudged
from ml_control.spec import PipelineSpec

BOUND = 0.999


def spec(columns: dict, task: str) -> PipelineSpec:
    text = {name: pl.Series(values).dtype == pl.String for name, values in columns.items()}
    features = [{"name": name, "type": "category" if text[name] else "number"} for name in columns]
    found = {"target": "t", "task": task, "features": features}
    if task == "binary":
        found["positive"] = "1"
    return PipelineSpec.model_validate(
        {
            "source": {"format": "csv", "partition": {"start": "2026-01-01"}},
            "columns": found,
        }
    )


def leaks(columns: dict, target: list, task: str) -> set[str]:
    found = scores(pl.DataFrame({**columns, "t": target}), spec(columns, task))
    assert set(columns) == set(found)
    assert all(0 <= score <= 1 for score in found.values())
    return {name for name, score in found.items() if score > BOUND}


@pytest.mark.parametrize("rows", [400, 20_000])
def test_leaks_of_two_classes(rows: int):
    """A copy, a rescaled copy, a band, gaps and codes leak; strong features and ids do not."""
    rng = np.random.default_rng(rows)
    y = (rng.random(rows) < 0.2).astype(int)
    noise = rng.normal(size=rows)
    either = np.where(rng.random(rows) < 0.5, 3.0, 8.0)
    leaking = {
        "copy": y * 1.0,
        "scaled": rng.random(rows) * 0.1 - 3 * y,
        "band": np.where(y == 1, 5.0, either) + rng.random(rows),
        "gap": np.where(y == 1, np.nan, noise),
        "word": np.where(y == 1, "yes", "no"),
        "absent": [None if one else "x" for one in y],
    }
    honest = {
        "strong": noise + 3 * y,
        "id": np.arange(rows) * 1.0,
        "id_text": [f"c{row}" for row in range(rows)],
        "good": np.where(rng.random(rows) < np.where(y == 1, 0.97, 0.03), "a", "b"),
        "noise": noise,
    }

    assert set(leaking) == leaks({**leaking, **honest}, [str(one) for one in y], "binary")


def test_leaks_of_many_classes():
    """Codes of the class leak in any order, as numbers or texts; coarser ones do not."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 5, 5_000)
    leaking = {
        "order": np.array([3.0, 1.0, 4.0, 0.0, 2.0])[y] + rng.random(5_000) * 0.5,
        "levels": [f"{one}-{rng.integers(9)}" for one in y],
    }
    honest = {
        "coarse": [str(one // 2) for one in y],
        "strong": y + rng.normal(size=5_000) * 0.4,
        "id": np.arange(5_000) * 1.0,
    }

    assert set(leaking) == leaks({**leaking, **honest}, [str(one) for one in y], "multiclass")


def test_leaks_of_amounts():
    """A line or a curve through the target leaks, and levels that fix it; ids do not."""
    rng = np.random.default_rng(2)
    level = rng.integers(0, 40, 4_000)
    y = level * 10.0 + rng.random(4_000) * 0.01
    leaking = {"line": 5 - 2 * y, "curve": np.exp(y / 100), "level": [f"l{one}" for one in level]}
    honest = {
        "near": y + rng.normal(size=4_000) * 20,
        "id_text": [f"c{row}" for row in range(4_000)],
        "gappy": np.where(rng.random(4_000) < 0.3, np.nan, y),
    }

    assert set(leaking) == leaks({**leaking, **honest}, y.tolist(), "regression")


def test_a_rare_class_does_not_make_every_column_leak():
    """Always answering a class of 99.9 % of the rows is right as often and tells nothing."""
    rng = np.random.default_rng(3)
    y = (np.arange(20_000) % 1_000 == 0).astype(int)
    columns = {"noise": rng.normal(size=20_000), "few": rng.choice(["a", "b"], 20_000)}

    assert set() == leaks(columns, [str(one) for one in y], "binary")


def test_repeated_rows_do_not_leak():
    """A file delivered ten times over is no leak: repeats are no evidence for a rule."""
    rng = np.random.default_rng(4)
    y, x = rng.integers(0, 2, 300), rng.normal(size=300)
    columns = {"x": np.tile(x, 10), "id_text": np.tile([f"c{i}" for i in range(300)], 10)}

    assert set() == leaks(columns, [str(one) for one in np.tile(y, 10)], "binary")


def test_few_rows_are_not_judged():
    """Below a hundred rows, or ten of the rarer class, anything can look like a leak."""
    y = ["1"] * 9 + ["0"] * 191
    pipeline = spec({"x": [1.0]}, "binary")

    assert "too few" in unjudged(pl.DataFrame({"t": y[100:]}).head(99), pipeline)
    assert "fewer than two classes" in unjudged(pl.DataFrame({"t": y}), pipeline)
    assert "" == unjudged(pl.DataFrame({"t": ["1", *y]}), pipeline)
