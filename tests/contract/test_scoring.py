"""Offline scores: of proven versions alone, each question answered once, as serving answers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_control.core.features import FeatureSpec, NumberFeature
from ml_control.errors import BadObject, NotProven, PlatformFailed
from ml_control.services.models import scoring
from ml_control.services.models.scoring import answers, score, write_out
from ml_control.services.reading.comparing import compare

P = "tumours"
LABELS = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
FINITE = st.floats(0, 1, width=32)


def features(task):
    return FeatureSpec(task=task, labels=LABELS[task], features=(NumberFeature(name="x"),))


@pytest.mark.parametrize("task", LABELS)
@given(data=st.data())
def test_many_answers_are_each_what_serving_says(task, data):
    """Label, score and probabilities of a whole column equal those of each prediction alone."""
    width = 3 if task == "multiclass" else 1
    rows = data.draw(st.lists(st.lists(FINITE, min_size=width, max_size=width), max_size=20))
    spec = features(task)
    values = np.asarray(rows, np.float32).reshape(len(rows), width)

    found = answers(spec, values if width > 1 else values.reshape(-1))
    expected = [spec.decode(row) for row in values.tolist()]
    assert [one["label"] for one in expected] == found["predicted"].to_list()
    assert [one["score"] for one in expected] == found["score"].to_list()
    if width > 1:
        wanted = [list(one["probabilities"].values()) for one in expected]
        assert wanted == [list(row) for row in found["probabilities"].to_list()]


def test_an_answer_that_is_no_number_is_refused():
    """No score is written for it."""
    with pytest.raises(PlatformFailed, match="finite"):
        answers(features("binary"), np.asarray([0.5, np.nan], np.float32))


def test_a_partition_is_scored_once(trained, monkeypatch, tmp_path):
    """All rows, in order, equal to the model's own test answers; asked again, nothing is done."""
    platform, pipeline = trained.platform, trained.pipeline()
    version = platform.registry.models.candidate(P).version
    day = trained.days[0]
    told = []

    done = score(platform, pipeline, day, told.append, version[:12])
    table = pl.read_parquet([platform.lake.local_path(file.path) for file in done.files])
    published = platform.registry.partitions.get(P, day).processed
    assert (published.rows, published.digest, version, False) == (
        table.height,
        done.data_version,
        done.model_version,
        done.adopted,
    )
    assert ["row_id", "split", "diagnosis", "predicted", "score"] == table.columns
    right = table.filter(pl.col("split") == "test").select(
        (pl.col("diagnosis") == pl.col("predicted")).mean()
    )
    assert right.item() > 0.9

    monkeypatch.setattr(scoring, "_score_part", lambda *_: pytest.fail("scored again"))
    again = score(platform, pipeline, day, told.append, version)
    assert (done.files, done.rows, True) == (again.files, again.rows, again.adopted)
    assert 1 == len(told)
    file = tmp_path / "out.parquet"
    assert write_out(platform, again, file) == file.stat().st_size
    assert table.equals(pl.read_parquet(file))
    with pytest.raises(PlatformFailed, match="could not be written"):
        write_out(platform, again, tmp_path / "nowhere" / "out.parquet")


def test_scores_that_died_half_way_are_made_again(trained, monkeypatch):
    """Without the summary nothing counts as scored; done again the bytes are the same."""
    platform, pipeline = trained.platform, trained.pipeline()
    version = platform.registry.models.candidate(P).version
    put = platform.lake.put

    def dies(key, data):
        if key.endswith(scoring.SUMMARY):
            raise PlatformFailed(key, "the disk is full", "free space")
        return put(key, data)

    monkeypatch.setattr(platform.lake, "put", dies)
    with pytest.raises(PlatformFailed, match="full"):
        score(platform, pipeline, trained.days[0], print, version)
    (left,) = [k for k in platform.lake.list(f"logs/{P}/scores") if k.endswith(".parquet")]
    before = platform.lake.get(left)
    monkeypatch.setattr(platform.lake, "put", put)

    done = score(platform, pipeline, trained.days[0], print, version)
    assert not done.adopted
    assert before == platform.lake.get(left)


def test_what_is_not_proven_scores_nothing(trained):
    """No live model, an unknown version, a refused one, other bytes, or a day without data."""
    platform, pipeline = trained.platform, trained.pipeline()
    models = platform.registry.models
    model = models.candidate(P)
    day = trained.days[0]
    with pytest.raises(NotProven, match="no model is live"):
        score(platform, pipeline, day, print)
    with pytest.raises(NotProven, match="no such model"):
        score(platform, pipeline, day, print, "0" * 64)
    with pytest.raises(BadObject, match="not published"):
        score(platform, pipeline, "2024-03-31", print, model.version)
    archive = f"{model.prefix}/model.tar.gz"
    kept = platform.lake.get(archive)
    platform.lake.put(archive, kept[:-1])
    with pytest.raises(NotProven, match="not the ones that were judged"):
        score(platform, pipeline, day, print, model.version)

    assert [] == list(platform.lake.list(f"logs/{P}/scores"))


def test_a_model_compared_with_itself_and_another(trained):
    """What is the same is not told as different; data, settings and metrics that differ are."""
    platform, pipeline = trained.platform, trained.pipeline()
    models = platform.registry.models
    model = models.candidate(P)
    same = compare(platform, pipeline, "candidate", model.version[:10])
    assert ({}, True, 2) == (
        same["hyperparameters"],
        same["features"]["same"],
        same["data"]["same"],
    )
    assert all(one["difference"] == 0 for one in same["metrics"].values())
    other = model.model_copy(
        update={
            "version": "f" * 64,
            "dataset": model.dataset.model_copy(update={"parts": model.dataset.parts[:1]}),
            "hyperparameters": {**model.hyperparameters, "eta": "0.9"},
            "metrics": {"auc": 0.5},
            "best_iteration": 3,
        }
    )
    with platform.registry.leases.hold(P, "model", "test") as lease:
        models.register(other, platform.registry.leases.fence(lease))

    found = compare(platform, pipeline, model.version, "f" * 64)
    assert {"eta"} == set(found["hyperparameters"])
    assert "0.9" == found["hyperparameters"]["eta"]["b"]
    assert ([trained.days[1]], []) == (found["data"]["only_a"], found["data"]["only_b"])
    assert ("a", None) == (found["metrics"]["auc"]["better"], found["metrics"]["f1"]["b"])
    with pytest.raises(NotProven, match="no model is live"):
        compare(platform, pipeline, "champion", "candidate")
