"""A search by tuning job: recorded, resumed, and its best trial's own output taken into use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trainers import Account, Aws

from ml_control.core.digests import digest_of
from ml_control.errors import Conflict, PlatformFailed, Retryable
from ml_control.platform import open_platform
from ml_control.ports import TrainingJob
from ml_control.services.models.tuning import tune
from ml_control.settings import load_settings
from ml_control.spec import Training

BASE = {
    "objective": "binary:logistic",
    "eval_metric": "logloss",
    "num_round": "10",
    "max_depth": "2",
    "eta": "0.3",
    "early_stopping_rounds": "3",
}
TRIALS = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Channel files of a small table, and golden rows."""
    folder = tmp_path_factory.mktemp("channels")
    random = np.random.default_rng(5)
    rows = random.normal(size=(300, 3)).astype(np.float32)
    labels = (rows[:, 0] + random.normal(scale=0.5, size=300) > 0).astype(int)
    lines = [",".join(map(str, [y, *x])) for y, x in zip(labels, rows.tolist(), strict=True)]
    (folder / "train.csv").write_text("\n".join(lines[:200]) + "\n")
    (folder / "validation.csv").write_text("\n".join(lines[200:]) + "\n")
    golden = "".join(",".join(map(str, row)) + "\n" for row in rows[:20].tolist())
    (folder / "golden.csv").write_text(golden)
    return folder


@pytest.fixture
def world():
    """An account of the test's own."""
    world = Account()
    yield world
    world.close()


class Searcher:
    """A home whose trainer is SageMaker."""

    def __init__(self, root, world, files):
        self.files, self.world = files, world
        local = open_platform(load_settings(home=root / "home"))
        self.platform = replace(local, trainer=Aws(root, world).client())
        self.said = []

    def job(self, settings):
        """A job named by its settings."""
        channels = {name: [self.files / f"{name}.csv"] for name in ("train", "validation")}
        name = f"shop-{digest_of(dict(settings))[:16]}"
        golden = self.files / "golden.csv"
        return TrainingJob(name, "3.2-0", dict(settings), channels, golden, 120.0)

    def __call__(self, trials=TRIALS):
        """Search over depth and eta."""
        training = Training.model_validate(
            {
                "hyperparameters": {"num_round": 10, "max_depth": 2, "eta": 0.3},
                "tuning": {"trials": trials, "ranges": {"max_depth": [1, 4], "eta": [0.01, 0.5]}},
            }
        )
        return tune(self.platform, "p", training, self.job(BASE), self.job, self.said.append)

    @property
    def trials(self):
        """What is recorded."""
        return list(self.platform.registry.models.study("p", ""))

    def tunings(self):
        """Names of the tuning jobs."""
        found = self.world.api.list_hyper_parameter_tuning_jobs()
        return [
            one["HyperParameterTuningJobName"] for one in found["HyperParameterTuningJobSummaries"]
        ]


@pytest.fixture
def search(tmp_path, world, files):
    """The search on one machine."""
    return Searcher(tmp_path / "one", world, files)


def test_a_search_is_one_tuning_job_beside_the_files_own_setting(search, tmp_path, world, files):
    """Its trials are recorded with their curves, the lowest wins, and its output is the model's;
    a replay trains nothing, here or on another machine with the same registry.
    """
    best, result = search()

    trials, jobs = search.trials, world.jobs()
    assert list(range(1, TRIALS + 1)) == [trial["number"] for trial in trials]
    assert {"max_depth": 2, "eta": 0.3} == trials[-1]["params"]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert all(trial["curve"] and trial["rounds_kept"] for trial in complete)
    lowest = min(complete, key=lambda trial: trial["value"])
    assert pytest.approx(lowest["value"], abs=1e-5) == result.watched_value
    assert lowest["rounds_kept"] == result.best_iteration + 1
    assert {**BASE, **{k: str(v) for k, v in lowest["params"].items()}} == best.hyperparameters
    assert 1 == len(search.tunings())
    assert TRIALS == len(jobs), "the best setting was trained a second time"
    assert not result.adopted
    first = result.model.read_bytes()

    again, replayed = search()
    assert (best.name, True) == (again.name, replayed.adopted)
    elsewhere = Aws(tmp_path / "two", world).client()
    search.platform = replace(search.platform, trainer=elsewhere)
    _, fetched = search()
    assert first == replayed.model.read_bytes() == fetched.model.read_bytes()
    assert (trials, jobs) == (search.trials, world.jobs())


def test_a_search_that_was_killed_goes_on_with_the_same_tuning_job(search, world, monkeypatch):
    """Recorded trials stay as they are, none is recorded twice, and no second job is made."""
    models = search.platform.registry.models
    record, count = models.record_trial, []

    def dies(*arguments):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return record(*arguments)

    monkeypatch.setattr(models, "record_trial", dies)
    with pytest.raises(KeyboardInterrupt):
        search()
    before = search.trials
    monkeypatch.setattr(models, "record_trial", record)

    search()

    assert 1 == len(before)
    assert before == search.trials[:1]
    assert list(range(1, TRIALS + 1)) == [trial["number"] for trial in search.trials]
    assert TRIALS == len({trial["job"] for trial in search.trials})
    assert 1 == len(search.tunings())


def test_more_trials_go_on_where_the_search_ended(search, world):
    """What was tried counts; the rest is another tuning job."""
    search(2)
    first = search.trials

    search(3)

    assert first == search.trials[:2]
    assert [1, 2, 3] == [trial["number"] for trial in search.trials]
    assert 3 == len(world.jobs())


def test_a_search_without_capacity_is_retryable_and_goes_on(search, world):
    """No trial is recorded for it; the next try has the next name."""
    world.fake.director.training("CapacityError", times=3)
    with pytest.raises(Retryable, match="Unable to provision"):
        search()
    assert [] == search.trials

    search()

    assert TRIALS == len(search.trials)
    assert sorted(search.tunings())[1] == f"{min(search.tunings())}-2"


def test_a_search_whose_trials_all_fail_says_why(search, world):
    """In the words of the first; it is not called retryable."""
    world.fake.director.training("AlgorithmError", times=3, reason="out of paper")
    with pytest.raises(PlatformFailed, match="out of paper"):
        search()
    assert {"failed"} == {trial["state"] for trial in search.trials}


def test_a_search_of_this_name_with_other_ranges_is_a_conflict(search, world, monkeypatch):
    """The name alone does not make it the same search."""
    from ml_control.services.models import tuning

    monkeypatch.setattr(tuning, "study_of", lambda *_: "study-0123456789abcdef")
    search(3)
    search.platform.registry.tables.close()
    other = Searcher(search.files.parent / "other", world, search.files)
    monkeypatch.setattr(tuning, "seed_of", lambda *_: 1)
    with pytest.raises(Conflict):
        other(3)
