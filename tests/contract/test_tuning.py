"""The search for hyperparameters, with real training processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ml_control.core.containers import container as container_of
from ml_control.core.digests import digest_of
from ml_control.core.metrics import watched
from ml_control.core.tuning import class_weights
from ml_control.environments import python_for
from ml_control.errors import Conflict, InvalidSpec, Retryable
from ml_control.local.files import exclusive
from ml_control.local.trainer import LocalTrainer
from ml_control.platform import open_platform
from ml_control.ports import TrainingJob
from ml_control.services.models.tuning import check_ranges, tune
from ml_control.settings import load_settings
from ml_control.spec import Training

BASE = {"objective": "binary:logistic", "eval_metric": "logloss", "num_round": "20"}


@pytest.fixture
def channels(tmp_path):
    """Channel files with a rare class, weighed so that both classes count the same."""
    random = np.random.default_rng(3)
    x = random.normal(size=(1200, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] + random.normal(size=1200) > 2.6).astype(int)
    w = np.array(class_weights(np.bincount(y).tolist()), np.float32)[y]
    for name, part in {"train": slice(0, 800), "validation": slice(800, 1200)}.items():
        for suffix, lead in (("", [y]), ("-weighted", [y, w])):
            rows = np.column_stack([*[column[part] for column in lead], x[part]]).astype("f4")
            text = "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())
            (tmp_path / f"{name}{suffix}.csv").write_text(text)
    rows = "".join(",".join(map(repr, row)) + "\n" for row in x[800:].tolist())
    (tmp_path / "golden.csv").write_text(rows)
    return {"folder": tmp_path, "y": y[800:], "w": w[800:]}


def job(channels, settings, suffix="", **more):
    """A job over the channel files, named by its settings."""
    folder = channels["folder"]
    files = {name: [folder / f"{name}{suffix}.csv"] for name in ("train", "validation")}
    name = f"job-{digest_of([settings, suffix, more])[:16]}"
    return TrainingJob(name, "3.2-0", settings, files, folder / "golden.csv", 120.0, **more)


def search(channels, platform, trials, said):
    """Tune depth and eta."""
    training = Training.model_validate(
        {
            "hyperparameters": {"num_round": 20, "max_depth": 2, "eta": 0.3},
            "tuning": {"trials": trials, "ranges": {"max_depth": [1, 3], "eta": [0.001, 0.5]}},
        }
    )
    usual = job(channels, {**BASE, "max_depth": "2", "eta": "0.3"})
    named = lambda settings: job(channels, dict(settings))  # noqa: E731
    return tune(platform, "p", training, usual, named, said.append)


def test_a_search_is_recorded_resumed_and_not_repeated(channels, tmp_path):
    """A search goes on after fewer trials, prefers the lowest validation value, prunes, and a
    replay trains nothing and finds the same job; another home makes the same trials.
    """
    platform = open_platform(load_settings(home=tmp_path / "home"))
    search(channels, platform, 3, [])
    first = list(platform.registry.models.study("p", ""))

    best, result = search(channels, platform, 9, [])
    trials = list(platform.registry.models.study("p", ""))
    said = []
    again, replayed = search(channels, platform, 9, said)

    assert first == trials[:3]
    assert list(range(1, 10)) == [trial["number"] for trial in trials]
    assert {"max_depth": 2, "eta": 0.3} == trials[0]["params"]
    values = {t["job"]: t["value"] for t in trials if t["value"] is not None}
    assert best.name == min(values, key=values.get)
    assert result.watched_value == values[best.name]
    assert {"complete", "pruned"} == {trial["state"] for trial in trials}
    assert (best.name, True, False) == (again.name, replayed.adopted, result.adopted)
    assert "9 trials were made before" in said[0]
    other = open_platform(load_settings(home=tmp_path / "other"))
    search(channels, other, 4, [])
    assert [t["params"] for t in trials[:4]] == [
        t["params"] for t in other.registry.models.study("p", "")
    ]


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"eta": [0.1, 3]}, "Hyperparameter eta: 3.0 is not in"),
        ({"max_depth": [1, 2.5]}, "2.5 is not an integer"),
        ({"depth": [1, 2]}, "can be searched"),
        ({"booster": [1, 2]}, "can be searched"),
        ({"seed": [1, 2]}, "can be searched"),
        ({"subsample": [0, 1]}, "Hyperparameter subsample: 0.0 is not in"),
    ],
)
def test_a_range_that_the_container_refuses_is_refused_at_load(ranges, words):
    """Before anything is trained, naming the field."""
    training = Training.model_validate({"tuning": {"ranges": ranges}})

    with pytest.raises(InvalidSpec, match=words) as caught:
        check_ranges(training, "defs.yaml")

    assert "training.tuning.ranges" in caught.value.object


def test_weighed_classes_raise_the_recall_of_the_rare_one(channels, tmp_path):
    """The weights reach training and its logged metric, which is recomputed with them."""
    trainer = LocalTrainer(tmp_path / "jobs", threads=1)
    plain = trainer.train(job(channels, BASE), lambda _: None)
    weighed = trainer.train(
        job(channels, {**BASE, "csv_weights": "1"}, "-weighted"), lambda _: None
    )

    rare = channels["y"] == 1
    before, after = (np.array(r.golden_predictions)[:, 0] for r in (plain, weighed))
    assert (after[rare] > 0.5).mean() > (before[rare] > 0.5).mean()
    found = watched(weighed.watched, channels["y"], after, channels["w"])
    assert pytest.approx(weighed.watched_value, rel=1e-5) == found
    assert pytest.approx(weighed.watched_value, rel=1e-2) != watched(
        weighed.watched, channels["y"], after
    )


def test_external_memory_gives_the_same_trees_and_leaves_no_pages(channels, tmp_path):
    """The model file is equal byte for byte; a tree method without that promise is refused."""
    trainer = LocalTrainer(tmp_path / "jobs", threads=1)
    inside = trainer.train(job(channels, BASE), lambda _: None)
    outside = trainer.train(job(channels, BASE, external_memory=True), lambda _: None)

    assert inside.model.read_bytes() == outside.model.read_bytes()
    assert not list((tmp_path / "jobs").glob("*/scratch"))
    exact = job(channels, {**BASE, "tree_method": "exact"}, external_memory=True)
    with pytest.raises(InvalidSpec, match="use hist or raise"):
        trainer.train(exact, lambda _: None)


PAGED = """
import sys
import ml_control.local.matrices as matrices
from ml_control.local.algorithm import main
matrices._PAGE = matrices._BLOCK = 4000
sys.exit(main(["--prefix", sys.argv[1]]))
"""


def algorithm(channels, prefix, container, settings, resources):
    """Run the training program with small pages in a container's interpreter: (status, report)."""
    folder, config = channels["folder"], prefix / "input" / "config"
    config.mkdir(parents=True)
    for name in ("train", "validation", "golden"):
        (prefix / "input" / "data" / name).mkdir(parents=True)
        shutil.copy(folder / f"{name}.csv", prefix / "input" / "data" / name / f"{name}.csv")
    (config / "hyperparameters.json").write_text(json.dumps(settings))
    (config / "resourceconfig.json").write_text(json.dumps({"nthread": 1, **resources}))
    done = subprocess.run(
        [python_for(container_of(container)), "-c", PAGED, prefix],
        cwd="/",
        capture_output=True,
        check=False,
    )
    if done.returncode:
        return done.returncode, (prefix / "output" / "failure").read_text()
    return 0, json.loads((prefix / "output" / "data" / "golden.json").read_bytes())


@pytest.mark.parametrize("container", ["1.7-1", "3.0-5"])
def test_pages_of_external_memory_predict_as_memory_does(channels, tmp_path, container):
    """Rows in several pages on disk give the predictions of rows in memory, on older versions
    too; what has no such promise there is refused in words.
    """
    hist = {**BASE, "tree_method": "hist"}
    inside = algorithm(channels, tmp_path / "inside", container, hist, {})
    outside = algorithm(channels, tmp_path / "outside", container, hist, {"external": True})
    other = {**BASE, "tree_method": "approx"}
    refused = algorithm(channels, tmp_path / "refused", container, other, {"external": True})

    assert (0, 0) == (inside[0], outside[0]), outside
    np.testing.assert_allclose(inside[1]["predictions"], outside[1]["predictions"], rtol=1e-5)
    assert pytest.approx(inside[1]["watched_value"], rel=1e-5) == outside[1]["watched_value"]
    assert 1 == refused[0]
    assert "approx cannot be trained from external memory; use hist" in refused[1]


def test_a_running_job_is_not_forgotten(channels, tmp_path):
    """Its folder and its lock stay; once it has ended, both go."""
    trainer, began = LocalTrainer(tmp_path / "jobs", threads=1), threading.Event()
    endless = job(channels, {**BASE, "num_round": "1000000"})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(trainer.train, endless, lambda _: began.set())
        try:
            assert began.wait(60)
            assert 0 == trainer.tidy("job-.*", [], 0)
            assert (tmp_path / "jobs" / endless.name / "process.json").exists()
        finally:
            trainer.end(endless.name)
        with pytest.raises(Retryable):
            future.result(60)

    assert 1 == trainer.tidy("job-.*", [], 0)
    assert [] == list((tmp_path / "jobs").iterdir())


def test_a_lock_whose_file_was_removed_is_taken_under_its_name(tmp_path):
    """Who waited for a holder that removed the file excludes those who come later."""
    path, order = tmp_path / "a.lock", []

    def wait_for_it():
        with exclusive(path, 10.0, "a"):
            order.append("waited")
            with pytest.raises(Conflict), exclusive(path, 0.0, "a"):
                order.append("both")

    with ThreadPoolExecutor(1) as pool, exclusive(path, 0.0, "a"):
        future = pool.submit(wait_for_it)
        time.sleep(0.2)
        path.unlink()
    future.result(10)

    assert ["waited"] == order


def test_ended_jobs_are_forgotten_but_those_in_use(channels, tmp_path):
    """Only names that match, not the kept, not the newest."""
    trainer = LocalTrainer(tmp_path / "jobs", threads=1)
    made = [job(channels, {**BASE, "num_round": str(n)}) for n in (1, 2, 3)]
    for one in made:
        trainer.train(one, lambda _: None)

    assert 0 == trainer.tidy("other-.*", [], 0)
    assert 1 == trainer.tidy("job-.*", [made[0].name], 1)

    left = {path.name for path in (tmp_path / "jobs").iterdir()}
    stay = {made[0].name, made[2].name}
    assert stay | {f"{name}.lock" for name in stay} == left
